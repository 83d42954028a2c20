/* client PORT DOMAINS CLIENTS MILLISECONDS [FIRST]: each client connects to one domain after the other, from
   FIRST on, says a line, and reads until the end. Prints: connections, seconds, p50 and p99 in us, wrong answers. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
enum { MOST = 1 << 17 };
static int port, domains, first, wrong, count, turn;
static double until, spent[MOST];
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}
static int once(int number)
{
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(port)};
    char said[32], heard[64];
    int have = 0, got, length = snprintf(said, sizeof said, "hello %d\n", number);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), place = first + number % domains;
    there.sin_addr.s_addr = htonl(0x7f000000 | (1 + place / 250) << 8 | (1 + place % 250));
    if (connect(fd, (struct sockaddr *)&there, sizeof there) || write(fd, said, length) != length) {
        close(fd);
        return 0;
    }
    while (have < (int)sizeof heard && (got = read(fd, heard + have, sizeof heard - have)) > 0)
        have += got;
    close(fd);
    return have == length && !memcmp(said, heard, length);
}
static void *client(void *unused)
{
    double begin;
    while ((begin = now()) < until) {
        int good = once(__atomic_fetch_add(&turn, 1, __ATOMIC_RELAXED));
        int at = __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
        if (at < MOST)
            spent[at] = now() - begin;
        if (!good)
            __atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
    }
    return unused;
}
static int order(const void *a, const void *b)
{
    return *(double *)a < *(double *)b ? -1 : *(double *)a > *(double *)b;
}
int main(int argc, char **argv)
{
    if (argc != 5 && argc != 6)
        return 1;
    port = atoi(argv[1]), domains = atoi(argv[2]), first = argc == 6 ? atoi(argv[5]) : 0;
    int clients = atoi(argv[3]), all;
    pthread_t threads[64];
    double begin = now();
    until = begin + atoi(argv[4]) / 1e3;
    for (int i = 0; i < clients && i < 64; i++)
        pthread_create(&threads[i], NULL, client, NULL);
    for (int i = 0; i < clients && i < 64; i++)
        pthread_join(threads[i], NULL);
    double seconds = now() - begin;
    all = count < MOST ? count : MOST;
    qsort(spent, all, sizeof *spent, order);
    printf("%d %f %.0f %.0f %d\n", count, seconds, spent[all / 2] * 1e6, spent[all * 99 / 100] * 1e6, wrong);
    return 0;
}
