/* wrapper CONF PROGRAM ARGS...: the steps of the HOWTO's virtuald, under inetd. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    struct sockaddr_in here;
    socklen_t size = sizeof here;
    char line[512], address[64], folder[400], wanted[64];
    FILE *conf;
    if (argc < 3 || getsockname(0, (struct sockaddr *)&here, &size))
        return 1;
    snprintf(wanted, sizeof wanted, "%s", inet_ntoa(here.sin_addr));
    if (!(conf = fopen(argv[1], "r")))
        return 1;
    while (fgets(line, sizeof line, conf)) {
        if (line[0] == '#' || sscanf(line, "%63s %399s", address, folder) != 2)
            continue;
        if (strcmp(address, wanted) && strcmp(address, "default"))
            continue;
        fclose(conf);
        if (chdir("/") || chroot(folder) || chdir("/"))
            return 1;
        execvp(argv[2], argv + 2);
        return 1;
    }
    return 1;
}
