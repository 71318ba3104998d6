/* unixcat PATH: connects to a unix socket, sends its input and ends that half, writes what comes.
 * Runs in containers, for tests/integration/functional/test_sockets.py. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int copy(int from, int to)
{
    static char buffer[1 << 16];
    ssize_t got;
    while ((got = read(from, buffer, sizeof buffer)) > 0)
        for (ssize_t done = 0, put; done < got; done += put)
            if ((put = write(to, buffer + done, (size_t)(got - done))) <= 0)
                return 3;
    return got ? 4 : 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_STREAM, 0);
    if (argc != 2 || sock < 0)
        return 1;
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    if (connect(sock, (struct sockaddr *)&address, sizeof address)) {
        perror("connect");
        return 2;
    }
    if (!fork()) {
        int result = copy(0, sock);
        shutdown(sock, SHUT_WR);
        _exit(result);
    }
    return copy(sock, 1);
}
