/* Loaded before libc (LD_PRELOAD): makes the n-th change of a file below a folder fail, or be the last thing that the
 * process does. Linux only. Built and driven by crashing.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { COUNT, DIE_BEFORE, DIE_AFTER, FULL, BROKEN };

static char folder[PATH_MAX];
static long target, seen;
static int kind, armed;

void faults_arm(const char *below, long n, int what) {
    strncpy(folder, below, sizeof folder - 1);
    target = n, kind = what, seen = 0, armed = 1;
}

long faults_disarm(void) {
    armed = 0;
    return seen;
}

static int below(const char *path) {
    return armed && strncmp(path, folder, strlen(folder)) == 0;
}

static int below_fd(int fd) {
    char link[64], path[PATH_MAX];
    if (!armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

/* 0: go on; 1: fail, errno is set; 2: half of it, then die. `grows`: needs space on the disk. */
static int fault(int ours, int grows) {
    if (!ours) return 0;
    seen++;
    if (kind == FULL && seen >= target && grows) return errno = ENOSPC, 1;
    if (seen != target) return 0;
    if (kind == DIE_BEFORE) _exit(99);
    if (kind == DIE_AFTER) return 2;
    if (kind == BROKEN) return errno = EIO, 1;
    return 0;
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)
#define FINISH(call) do { long done = (call); if (what == 2) _exit(99); return done; } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    int what = fault(below_fd(fd), 1);
    if (what == 1) return -1;
    FINISH(real(fd, data, what == 2 ? size / 2 : size));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    int what = fault(below_fd(fd), 1);
    if (what == 1) return -1;
    FINISH(real(fd, data, what == 2 ? size / 2 : size, at));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }

int fsync(int fd) {
    REAL(int, "fsync", int);
    int what = fault(below_fd(fd), 1);
    if (what == 1) return -1;
    FINISH(real(fd));
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    int what = fault(below_fd(fd), 1);
    if (what == 1) return -1;
    FINISH(real(fd));
}

int ftruncate64(int fd, off64_t size) {
    REAL(int, "ftruncate64", int, off64_t);
    int what = fault(below_fd(fd), 0);
    if (what == 1) return -1;
    FINISH(real(fd, size));
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    int what = fault(below(to), 1);
    if (what == 1) return -1;
    FINISH(real(from, to));
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    int what = fault(below(path), 0);
    if (what == 1) return -1;
    FINISH(real(path));
}

static int creates(const char *path, int flags) {
    struct stat found;
    return below(path) && (flags & O_CREAT) && stat(path, &found) != 0;
}

static mode_t mode_of(int flags, va_list rest) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; }

int open64(const char *path, int flags, ...) {
    REAL(int, "open64", const char *, int, ...);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    int what = fault(creates(path, flags), 1);
    if (what == 1) return -1;
    FINISH(real(path, flags, mode));
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return open64(path, flags, mode);
}
