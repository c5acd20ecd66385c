/* Runs in the emulated machine: guest-load KIND SECONDS makes hundreds of slabs a cache, lets go of
 * them in another order than they came, and begins again. KIND is forks, files, sockets or maps:
 * areas of vmalloc, BPF arrays of 9 to 505 pages and kernel stacks, so that it purges often. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t seed = 88172645463325252ULL;
static double end_at;
static int worker;

static double now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

/* The same numbers in every run. */
static unsigned below(unsigned limit)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % limit;
}

static void shuffle(int *list, int count)
{
	for (int at = count - 1; at > 0; at--) {
		int other = below(at + 1), kept = list[at];
		list[at] = list[other];
		list[other] = kept;
	}
}

/* A child with mappings of its own that waits to be killed, or one that runs another program. */
static void child(int number)
{
	for (int area = 0; area < 6; area++) {
		int protection = area & 1 ? PROT_READ | PROT_WRITE : PROT_READ;
		char *at = mmap(NULL, 8192, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (at != MAP_FAILED && area & 1)
			*at = 1;
	}
	if (number % 4 == 0)
		execl("/bin/busybox", "true", (char *)NULL);
	pause();
	_exit(0);
}

static void forks(void)
{
	enum { MANY = 100 };
	int children[MANY], count = 0;
	while (now() < end_at) {
		while (count < MANY && now() < end_at) {
			int pid = fork();
			if (pid == 0)
				child(count);
			if (pid < 0)
				break;
			children[count++] = pid;
		}
		shuffle(children, count);
		int left = count / (2 + below(3));
		while (count > left) {
			kill(children[--count], SIGKILL);
			waitpid(children[count], NULL, 0);
		}
	}
	while (count > 0) {
		kill(children[--count], SIGKILL);
		waitpid(children[count], NULL, 0);
	}
}

static void name_of(char *name, int number)
{
	const char *tail = number % 8 ? "" : "-with-a-name-too-long-to-stand-in-the-entry-itself";
	sprintf(name, "/tmp/load/%d/file-%d-%d%s", number % 16, worker, number, tail);
}

static void files(void)
{
	enum { MANY = 4000, OPEN = 500 };
	static int numbers[MANY], open_ones[OPEN];
	char name[128];
	int count = 0, opened = 0, next = 0;
	for (int folder = 0; folder < 16; folder++) {
		sprintf(name, "/tmp/load/%d", folder);
		mkdir(name, 0700);
	}
	while (now() < end_at) {
		while (count < MANY && now() < end_at) {
			name_of(name, next);
			int fd = open(name, O_CREAT | O_RDWR, 0600);
			if (fd < 0)
				break;
			if (next % 16 == 0 && write(fd, name, sizeof name) < 0)
				break;
			if (opened < OPEN && next % 3 == 0)
				open_ones[opened++] = fd;
			else
				close(fd);
			numbers[count++] = next++;
			sprintf(name, "/tmp/load/no-such-%d", below(4000));
			access(name, F_OK);
		}
		shuffle(open_ones, opened);
		while (opened > OPEN / 3)
			close(open_ones[--opened]);
		shuffle(numbers, count);
		int left = count / (2 + below(4));
		while (count > left) {
			name_of(name, numbers[--count]);
			unlink(name);
		}
	}
}

static int queue;

/* Messages of System V, of several sizes, sent and received. */
static void messages(int count)
{
	struct { long type; char text[512]; } message = { .type = 1 };
	static const int sizes[] = { 8, 60, 120, 300 };
	for (int sent = 0; sent < count; sent++)
		msgsnd(queue, &message, sizes[below(4)], IPC_NOWAIT);
	for (int got = 0; got < count * 2 / 3; got++)
		msgrcv(queue, &message, sizeof message.text, 0, IPC_NOWAIT | MSG_NOERROR);
}

/* One or two descriptors of some kind, with something sent through them. */
static int some_ends(int *ends, int poll)
{
	struct sockaddr_in here = { .sin_family = AF_INET };
	struct epoll_event wanted = { .events = EPOLLIN };
	here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	switch (below(6)) {
	case 0:
		if (pipe(ends) < 0)
			return 0;
		if (write(ends[1], "x", 1) < 0)
			break;
		return 2;
	case 1:
	case 2:
		if (socketpair(AF_UNIX, below(2) ? SOCK_STREAM : SOCK_DGRAM, 0, ends) < 0)
			return 0;
		for (int sent = 0; sent < 4; sent++)
			send(ends[0], ends, 1 + below(700), MSG_DONTWAIT);
		return 2;
	case 3:
		ends[0] = socket(AF_INET, SOCK_DGRAM, 0);
		here.sin_port = htons(20000 + below(20000));
		if (ends[0] < 0)
			return 0;
		bind(ends[0], (struct sockaddr *)&here, sizeof here);
		for (int sent = 0; sent < 4; sent++)
			sendto(ends[0], &here, 1 + below(16), MSG_DONTWAIT, (struct sockaddr *)&here,
			       sizeof here);
		return 1;
	case 4:
		ends[0] = eventfd(0, 0);
		if (ends[0] >= 0)
			epoll_ctl(poll, EPOLL_CTL_ADD, ends[0], &wanted);
		return ends[0] >= 0;
	default:
		ends[0] = socket(AF_UNIX, SOCK_DGRAM, 0);
		return ends[0] >= 0;
	}
	return 0;
}

static void sockets(void)
{
	enum { MANY = 1000 };
	static int ends[MANY + 2];
	int count = 0, poll = epoll_create1(0);
	struct ifreq link = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int control = socket(AF_INET, SOCK_DGRAM, 0);
	ioctl(control, SIOCSIFFLAGS, &link);
	while (now() < end_at) {
		while (count < MANY && now() < end_at) {
			count += some_ends(ends + count, poll);
			if (count % 40 == 0)
				messages(30);
			if (count % 10 == 0)
				usleep(2000);
		}
		shuffle(ends, count);
		int left = count / (2 + below(4));
		while (count > left)
			close(ends[--count]);
	}
}

/* A BPF array of some pages. Beyond 32 KiB its memory is an area of vmalloc. */
static int array_of(unsigned pages)
{
	union bpf_attr wanted = {
		.map_type = BPF_MAP_TYPE_ARRAY,
		.key_size = 4,
		.value_size = 4096,
		.max_entries = pages,
	};
	return syscall(SYS_bpf, BPF_MAP_CREATE, &wanted, sizeof wanted);
}

/* Children that wait, so that more kernel stacks are in use than the processors keep at hand. */
static void stacks(int count)
{
	int children[40], started = 0;
	while (started < count) {
		int pid = fork();
		if (pid == 0) {
			pause();
			_exit(0);
		}
		if (pid < 0)
			break;
		children[started++] = pid;
	}
	shuffle(children, started);
	while (started > 0) {
		kill(children[--started], SIGKILL);
		waitpid(children[started], NULL, 0);
	}
}

static void maps(void)
{
	enum { MANY = 60 };
	int arrays[MANY], count = 0;
	while (now() < end_at) {
		while (count < MANY && now() < end_at) {
			int array = array_of(below(8) ? 8 + below(56) : 8 + below(497));
			if (array < 0)
				break;
			arrays[count++] = array;
			if (below(20) == 0)
				stacks(1 + below(40));
		}
		shuffle(arrays, count);
		int left = count / (2 + below(4));
		while (count > left)
			close(arrays[--count]);
	}
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	struct rlimit many = { 4096, 4096 };
	setrlimit(RLIMIT_NOFILE, &many);
	mkdir("/tmp/load", 0700);
	end_at = now() + atof(argv[2]);
	queue = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
	/* Two of it: what is freed on another processor than it was taken on is the point. */
	int other = fork();
	if (other == 0)
		seed += worker = 1;
	if (!strcmp(argv[1], "forks"))
		forks();
	else if (!strcmp(argv[1], "files"))
		files();
	else if (!strcmp(argv[1], "sockets"))
		sockets();
	else if (!strcmp(argv[1], "maps"))
		maps();
	else
		return 2;
	if (other > 0) {
		waitpid(other, NULL, 0);
		msgctl(queue, IPC_RMID, NULL);
	}
	return 0;
}
