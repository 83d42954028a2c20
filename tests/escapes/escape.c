/* The known ways for root out of a chroot, one a word. Prints what it reached and returns 0, or says
   what stopped it and returns 1. Targets are files and processes that the test made. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define CELL "/tmp/cell"

static int stopped(const char *what)
{
    printf("stopped at %s: %s\n", what, strerror(errno));
    return 1;
}

static int out(const char *what)
{
    printf("out: %s\n", what);
    return 0;
}

/* A key of the caller's session, or of the user whose number is ours: keyrings know no namespace. */
static int keyring(const char *name)
{
    char text[64] = "";
    syscall(SYS_keyctl, 8 /* KEYCTL_LINK */, -4 /* user's */, -3 /* session's */);
    long key = syscall(SYS_keyctl, 10 /* KEYCTL_SEARCH */, -3, "user", name, 0);
    if (key < 0) return stopped(name);
    if (syscall(SYS_keyctl, 11 /* KEYCTL_READ */, key, text, sizeof text - 1) < 0) return stopped("read");
    return out(text);
}

static int reach(const char *marker)
{
    char text[64] = "";
    int fd = open(marker, O_RDONLY);
    if (fd < 0) return stopped(marker);
    if (read(fd, text, sizeof text - 1) < 0) return stopped("read");
    return out(text);
}

static int climb(const char *marker)
{
    for (int i = 0; i < 100; i++)
        if (chdir("..") < 0) return stopped("..");
    if (chroot(".") < 0) return stopped("chroot");
    return reach(marker);
}

/* A root below the working directory: ".." meets no root any more. */
static int second_chroot(const char *marker)
{
    mkdir(CELL, 0700);
    if (chroot(CELL) < 0) return stopped("chroot");
    return climb(marker);
}

static int kept_descriptor(const char *marker)
{
    int fd = open("/", O_RDONLY | O_DIRECTORY);
    mkdir(CELL, 0700);
    if (chroot(CELL) < 0 || chdir("/") < 0) return stopped("chroot");
    if (fchdir(fd) < 0) return stopped("fchdir");
    return climb(marker);
}

static int inherited(int fd, const char *marker)
{
    if (fchdir(fd) < 0) return stopped("fchdir");
    return climb(marker);
}

static int passed(const char *marker)
{
    int ends[2], fd = open("/", O_RDONLY | O_DIRECTORY);
    char space[CMSG_SPACE(sizeof fd)] = {0}, byte = 0;
    struct iovec part = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0) return stopped("socketpair");
    if (fork() == 0) {
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
        _exit(sendmsg(ends[0], &message, 0) < 0);
    }
    close(fd);
    mkdir(CELL, 0700);
    if (chroot(CELL) < 0 || chdir("/") < 0) return stopped("chroot");
    if (recvmsg(ends[1], &message, 0) < 0) return stopped("recvmsg");
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    wait(NULL);
    if (fchdir(fd) < 0) return stopped("fchdir");
    return climb(marker);
}

static int moved(const char *folder, const char *marker)
{
    struct stat found;
    if (chdir(folder) < 0 || close(creat("ready", 0600)) < 0) return stopped(folder);
    for (int i = 0; i < 1000 && stat("go", &found) < 0; i++) usleep(10000);
    return climb(marker);
}

static int mount_proc(const char *pid, const char *marker)
{
    char path[4096];
    int status;
    mkdir(CELL, 0700);
    if (mount("proc", CELL, "proc", 0, NULL) < 0) return stopped("mount");
    snprintf(path, sizeof path, CELL "/%s/root%s", pid, marker);
    status = reach(path);
    umount(CELL);
    return status;
}

static int root_of(const char *pid, const char *marker)
{
    char path[4096];
    snprintf(path, sizeof path, "/proc/%s/root%s", pid, marker);
    return reach(path);
}

static int make_device(int type, int major_number, int minor_number)
{
    char sector[512];
    int fd, status = 1;
    mkdir(CELL, 0700);
    if (mknod(CELL "/node", type | 0600, makedev(major_number, minor_number)) < 0)
        return stopped("mknod");
    fd = open(CELL "/node", O_RDONLY);
    status = fd < 0 || read(fd, sector, sizeof sector) < 0 ? stopped("read") : out("device");
    unlink(CELL "/node");
    return status;
}

static int mount_device(int major_number, int minor_number, const char *kind, const char *name)
{
    char path[4096];
    int status;
    mkdir(CELL, 0700);
    mkdir(CELL "/disk", 0700);
    if (mknod(CELL "/node", S_IFBLK | 0600, makedev(major_number, minor_number)) < 0)
        return stopped("mknod");
    status = mount(CELL "/node", CELL "/disk", kind, MS_RDONLY, NULL) < 0 ? stopped("mount") : 0;
    unlink(CELL "/node");
    if (status) return status;
    snprintf(path, sizeof path, CELL "/disk/%s", name);
    status = reach(path);
    umount(CELL "/disk");
    return status;
}

static int trace(int pid)
{
    if (ptrace(PTRACE_ATTACH, pid, NULL, NULL) < 0) return stopped("ptrace");
    waitpid(pid, NULL, __WALL);
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
    return out("traced");
}

static int signal_to(int pid)
{
    return kill(pid, SIGUSR1) < 0 ? stopped("kill") : out("sent");
}

/* Whether the keys arrive is for whoever comes after us on that terminal to see. */
static int type(const char *keys)
{
    int done = 0;
    for (int fd = 0; fd < 4; fd++) {
        int tty = fd < 3 ? fd : open("/dev/tty", O_RDWR);
        const char *key = keys;
        while (*key && ioctl(tty, TIOCSTI, key) == 0) key++;
        done |= !*key;
    }
    return done ? out("typed") : stopped("TIOCSTI");
}

static int name_handle(const char *path)
{
    struct file_handle *handle = calloc(1, sizeof *handle + MAX_HANDLE_SZ);
    int mount_id;
    handle->handle_bytes = MAX_HANDLE_SZ;
    if (name_to_handle_at(AT_FDCWD, path, handle, &mount_id, 0) < 0) return stopped("handle");
    printf("%d ", handle->handle_type);
    for (unsigned i = 0; i < handle->handle_bytes; i++) printf("%02x", handle->f_handle[i]);
    printf("\n");
    return 0;
}

static int open_handle(int kind, const char *digits)
{
    struct file_handle *handle = calloc(1, sizeof *handle + MAX_HANDLE_SZ);
    char text[64] = "";
    int fd, root = open("/", O_RDONLY | O_DIRECTORY);
    handle->handle_type = kind;
    handle->handle_bytes = strlen(digits) / 2;
    for (unsigned i = 0; i < handle->handle_bytes; i++) {
        unsigned byte;
        sscanf(digits + 2 * i, "%2x", &byte);
        handle->f_handle[i] = byte;
    }
    fd = open_by_handle_at(root, handle, O_RDONLY);
    if (fd < 0) return stopped("open_by_handle_at");
    if (read(fd, text, sizeof text - 1) < 0) return stopped("read");
    return out(text);
}

/* All capabilities, in a user namespace of our own: what is mounted here must stay as it is. */
static int user_namespace(const char *folder)
{
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) return stopped("unshare");
    if (umount2(folder, MNT_DETACH) == 0) return out("unmounted");
    if (mount(NULL, folder, NULL, MS_REMOUNT | MS_BIND, NULL) == 0) return out("remounted");
    mkdir(CELL, 0700);
    if (mount("proc", CELL, "proc", 0, NULL) == 0) return out("a proc that hides nothing");
    return stopped("mounts");
}

static int write_to(const char *path)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0) return stopped("open");
    close(fd);
    return out(path);
}

static int join(const char *pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/ns/mnt", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0) return stopped("open");
    return setns(fd, CLONE_NEWNS) < 0 ? stopped("setns") : out("joined");
}

int main(int count, char **words)
{
    const char *way = words[1], *first = words[2], *second = words[3];
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count < 3) return 2;
    if (!strcmp(way, "second-chroot")) return second_chroot(first);
    if (!strcmp(way, "kept-descriptor")) return kept_descriptor(first);
    if (!strcmp(way, "inherited")) return inherited(atoi(first), second);
    if (!strcmp(way, "passed")) return passed(first);
    if (!strcmp(way, "moved")) return moved(first, second);
    if (!strcmp(way, "mount-proc")) return mount_proc(first, second);
    if (!strcmp(way, "root-of")) return root_of(first, second);
    if (!strcmp(way, "block")) return make_device(S_IFBLK, atoi(first), atoi(second));
    if (!strcmp(way, "memory")) return make_device(S_IFCHR, atoi(first), atoi(second));
    if (!strcmp(way, "mount-device")) return mount_device(atoi(first), atoi(second), words[4], words[5]);
    if (!strcmp(way, "trace")) return trace(atoi(first));
    if (!strcmp(way, "signal")) return signal_to(atoi(first));
    if (!strcmp(way, "type")) return type(first);
    if (!strcmp(way, "name-handle")) return name_handle(first);
    if (!strcmp(way, "open-handle")) return open_handle(atoi(first), second);
    if (!strcmp(way, "user-namespace")) return user_namespace(first);
    if (!strcmp(way, "write")) return write_to(first);
    if (!strcmp(way, "join")) return join(first);
    if (!strcmp(way, "keyring")) return keyring(first);
    return 2;
}
