"""chain/chain.h"""

from libc.stdint cimport int32_t, uint8_t

from core_span cimport bkm_span
from sha256_kernel cimport bkm_sha256_kernel


cdef extern from "chain/chain.h" nogil:
    enum:
        BKM_ID_SIZE

    ctypedef struct bkm_chain_input:
        size_t count
        const int32_t *parent
        const bkm_span *diff_id
        const bkm_span *blob
        const bkm_span *given_chain
        const bkm_span *given_blob_chain
        const uint8_t *skip

    ctypedef struct bkm_chain_ids:
        pass

    ctypedef struct bkm_chain_output:
        bkm_chain_ids *ids
        uint8_t *state

    ctypedef enum bkm_chain_state:
        BKM_CHAIN_STATES

    ctypedef enum bkm_chain_status:
        BKM_CHAIN_OK
        BKM_CHAIN_NO_MEMORY
        BKM_CHAIN_BAD_INPUT

    bkm_chain_status bkm_chain_run(const bkm_chain_input *input, const bkm_chain_output *output,
                                   const bkm_sha256_kernel *kernel, unsigned threads)
    bkm_span bkm_chain_id(const bkm_chain_input *input, const bkm_chain_output *output, size_t record,
                          uint8_t *space)
    bkm_span bkm_blob_chain_id(const bkm_chain_input *input, const bkm_chain_output *output, size_t record,
                               uint8_t *space)
