/* Preloaded: flock as on file systems that have it otherwise. $SHIM_FLOCK: "nfs", or the number of an error. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

int flock(int fd, int operation)
{
    static int (*real)(int, int);
    const char *how = getenv("SHIM_FLOCK");
    if (real == NULL)
        real = (int (*)(int, int))dlsym(RTLD_NEXT, "flock");
    if (how != NULL && strcmp(how, "nfs") == 0) {
        int access = fcntl(fd, F_GETFL) & O_ACCMODE;
        if (((operation & LOCK_EX) && access == O_RDONLY) || ((operation & LOCK_SH) && access == O_WRONLY)) {
            errno = EBADF;
            return -1;
        }
    } else if (how != NULL && !(operation & LOCK_UN)) {
        errno = atoi(how);
        return -1;
    }
    return real(fd, operation);
}
