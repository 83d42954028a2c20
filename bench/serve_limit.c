/* limit CONF PORT PROGRAM: accept, vfork, chroot, execve, with the routes in memory, and nothing else. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
static char *folders[1 << 16]; /* by the lower half of 127.0.a.b */
int main(int argc, char **argv)
{
    char line[512], address[64], folder[400];
    struct sockaddr_in here = {.sin_family = AF_INET};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    FILE *conf = argc == 4 ? fopen(argv[1], "r") : NULL;
    if (!conf)
        return 1;
    while (fgets(line, sizeof line, conf))
        if (sscanf(line, "%63s %399s", address, folder) == 2)
            folders[ntohl(inet_addr(address)) & 0xffff] = strdup(folder);
    fclose(conf);
    here.sin_port = htons(atoi(argv[2]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 1024))
        return 1;
    char *words[] = {argv[3], NULL}, *env[] = {"PATH=/bin", NULL};
    for (;;) {
        struct sockaddr_in local;
        socklen_t size = sizeof local;
        int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0)
            continue;
        getsockname(connection, (struct sockaddr *)&local, &size);
        char *place = folders[ntohl(local.sin_addr.s_addr) & 0xffff];
        if (place && vfork() == 0) {
            if (chroot(place) || chdir("/"))
                _exit(1);
            dup2(connection, 0), dup2(connection, 1), dup2(connection, 2);
            execve(argv[3], words, env);
            _exit(1);
        }
        close(connection);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}
