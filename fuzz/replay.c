/* Runs a harness over files, without a fuzzer: for any compiler. */
#include "common.h"

static bool run(const char *path)
{
    FILE *in = fopen(path, "rb");
    if (!in) {
        perror(path);
        return false;
    }
    uint8_t *data = NULL;
    size_t size = 0, got;
    do {
        data = realloc(data, size + 65536);
        BKM_DEMAND(data);
        got = fread(data + size, 1, 65536, in);
        size += got;
    } while (got);
    fclose(in);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    return true;
}

int main(int count, char **paths)
{
    bool ok = count > 1;
    for (int i = 1; i < count; i++)
        ok &= run(paths[i]);
    return ok ? 0 : 2;
}
