from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Timestamp(_message.Message):
    __slots__ = ("seconds", "nanos")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    NANOS_FIELD_NUMBER: _ClassVar[int]
    seconds: int
    nanos: int
    def __init__(self, seconds: _Optional[int] = ..., nanos: _Optional[int] = ...) -> None: ...

class Descriptor(_message.Message):
    __slots__ = ("media_type", "digest", "size")
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    media_type: bytes
    digest: bytes
    size: int
    def __init__(self, media_type: _Optional[bytes] = ..., digest: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class NumberedDescriptor(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: int
    value: Descriptor
    def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[Descriptor, _Mapping]] = ...) -> None: ...

class BuildResultInfo(_message.Message):
    __slots__ = ("result_deprecated", "attestations", "results")
    RESULT_DEPRECATED_FIELD_NUMBER: _ClassVar[int]
    ATTESTATIONS_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    result_deprecated: Descriptor
    attestations: _containers.RepeatedCompositeFieldContainer[Descriptor]
    results: _containers.RepeatedCompositeFieldContainer[NumberedDescriptor]
    def __init__(self, result_deprecated: _Optional[_Union[Descriptor, _Mapping]] = ..., attestations: _Optional[_Iterable[_Union[Descriptor, _Mapping]]] = ..., results: _Optional[_Iterable[_Union[NumberedDescriptor, _Mapping]]] = ...) -> None: ...

class NamedResult(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: BuildResultInfo
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[_Union[BuildResultInfo, _Mapping]] = ...) -> None: ...

class BuildHistoryRecord(_message.Message):
    __slots__ = ("ref", "created_at", "completed_at", "logs", "result", "results", "generation", "trace", "pinned", "external_error")
    REF_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_AT_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_ERROR_FIELD_NUMBER: _ClassVar[int]
    ref: bytes
    created_at: Timestamp
    completed_at: Timestamp
    logs: Descriptor
    result: BuildResultInfo
    results: _containers.RepeatedCompositeFieldContainer[NamedResult]
    generation: int
    trace: Descriptor
    pinned: bool
    external_error: Descriptor
    def __init__(self, ref: _Optional[bytes] = ..., created_at: _Optional[_Union[Timestamp, _Mapping]] = ..., completed_at: _Optional[_Union[Timestamp, _Mapping]] = ..., logs: _Optional[_Union[Descriptor, _Mapping]] = ..., result: _Optional[_Union[BuildResultInfo, _Mapping]] = ..., results: _Optional[_Iterable[_Union[NamedResult, _Mapping]]] = ..., generation: _Optional[int] = ..., trace: _Optional[_Union[Descriptor, _Mapping]] = ..., pinned: bool = ..., external_error: _Optional[_Union[Descriptor, _Mapping]] = ...) -> None: ...
