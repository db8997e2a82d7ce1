/* sigaction and its siginfo_t are POSIX, which strict C11 leaves out. */
#define _POSIX_C_SOURCE 200809L

#include "core/bus_error_handler.h"

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

static struct {
    bkm_words error, output;
    int status;
    struct sigaction before;
    atomic_flag is_ending;
} state = {.is_ending = ATOMIC_FLAG_INIT};

static void say(int fd, bkm_words words)
{
    while (words.size) {
        ssize_t written = write(fd, words.text, words.size);
        if (written <= 0)
            return;
        words.text += written;
        words.size -= (size_t)written;
    }
}

/* Makes only async-signal-safe calls. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (info->si_code != BUS_ADRERR) {
        sigaction(number, &state.before, NULL);
        raise(number); /* delivered when this function returns */
        return;
    }
    /* Further threads that get here wait for the process to end. */
    while (atomic_flag_test_and_set(&state.is_ending))
        pause();
    say(2, state.error);
    say(1, state.output);
    _exit(state.status);
}

bool bkm_bus_error_install(bkm_words error, bkm_words output, int status)
{
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    state.error = error;
    state.output = output;
    state.status = status;
    return sigaction(SIGBUS, &action, &state.before) == 0;
}

void bkm_bus_error_remove(void)
{
    sigaction(SIGBUS, &state.before, NULL);
}
