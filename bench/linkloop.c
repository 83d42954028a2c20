/* The reference for linked trees: nothing but mkdirat, linkat and symlinkat.
 *
 *   linkloop OPERATIONS STORE TARGET FIRST COUNT
 *
 * OPERATIONS holds NUL-terminated triples: "d" path "", "l" path object, "s" path target.
 * Prints the nanoseconds that each of COUNT trees below TARGET took.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct operation {
    char kind;
    const char *path, *other;
};

static long long now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

int main(int argc, char **argv)
{
    static char text[1 << 24];
    static struct operation operations[1 << 17];
    int count = 0;
    if (argc != 6) return 2;
    FILE *file = fopen(argv[1], "rb");
    if (!file) fail(argv[1]);
    size_t size = fread(text, 1, sizeof text, file);
    for (char *at = text; at < text + size;) {
        struct operation *one = &operations[count++];
        one->kind = *at, at += 2;
        one->path = at, at += strlen(at) + 1;
        one->other = at, at += strlen(at) + 1;
    }
    int store = open(argv[2], O_RDONLY | O_DIRECTORY), target = open(argv[3], O_RDONLY | O_DIRECTORY);
    if (store < 0 || target < 0) fail("open");
    umask(0);
    for (int tree = atoi(argv[4]), end = tree + atoi(argv[5]); tree < end; tree++) {
        char name[32];
        long long start = now();
        snprintf(name, sizeof name, "%d.org", tree);
        if (mkdirat(target, name, 0755)) fail(name);
        int top = openat(target, name, O_RDONLY | O_DIRECTORY);
        for (struct operation *one = operations; one < operations + count; one++) {
            int bad = one->kind == 'd' ? mkdirat(top, one->path, 0755)
                    : one->kind == 'l' ? linkat(store, one->other, top, one->path, 0)
                                       : symlinkat(one->other, top, one->path);
            if (bad) fail(one->path);
        }
        close(top);
        printf("%lld\n", now() - start);
    }
    return 0;
}
