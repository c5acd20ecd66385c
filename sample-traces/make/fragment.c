/* fragment SPARE_MIB COMMAND...: breaks all free memory up to single pages, runs the command, and
 * ends with its status. What is free then lies between locked pages, and no larger block is left.
 * The machine's memory but SPARE_MIB is used; compaction must leave locked pages alone
 * (vm.compact_unevictable_allowed=0). */
#define _GNU_SOURCE
#include <linux/if_packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
enum { PAGE = 4096, HUGE = 2 << 20, RING_BLOCK = 32 << 10, RING_BLOCKS = 500, RINGS = 130 };

static void failed(const char *what)
{
	perror(what);
	exit(1);
}

static long available_mib(void)
{
	char line[128];
	long kib = 0;
	FILE *file = fopen("/proc/meminfo", "r");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %ld", &kib) == 1)
			break;
	return kib / 1024;
}

/* Every other page of it is free. */
static void locked_pages(size_t bytes)
{
	char *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (pages == MAP_FAILED)
		failed("mmap");
	madvise(pages, bytes, MADV_NOHUGEPAGE);
	if (mlock(pages, bytes))
		failed("mlock");
	for (size_t at = 0; at < bytes; at += 2 * PAGE)
		if (madvise(pages + at, PAGE, MADV_DONTNEED_LOCKED))
			failed("madvise");
}

/* The blocks of order 9 and 10 that were spared. */
static void huge_pages(size_t bytes)
{
	char *pages = aligned_alloc(HUGE, bytes);
	if (!pages)
		failed("aligned_alloc");
	madvise(pages, bytes, MADV_HUGEPAGE);
	for (size_t at = 0; at < bytes; at += HUGE)
		pages[at] = 1;
}

/* Packet rings take what is left of order 3 and above, then single pages. The kernel's list of a
 * ring's blocks fits in a page. */
static void ring(void)
{
	struct tpacket_req ring = { RING_BLOCK, RING_BLOCKS, 2048, RING_BLOCKS * (RING_BLOCK / 2048) };
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring)))
		failed("packet ring");
}

int main(int count, char **words)
{
	int status = 0;
	if (count < 3) {
		fputs("fragment SPARE_MIB COMMAND...\n", stderr);
		return 2;
	}
	long spare = atol(words[1]);
	long mib = available_mib() - spare;
	if (mib <= 0)
		failed("too little memory is available");
	/* Should memory run out, this goes first. */
	FILE *file = fopen("/proc/self/oom_score_adj", "w");
	if (file && fputs("1000", file) >= 0)
		fclose(file);
	locked_pages((size_t)mib << 20);
	huge_pages((size_t)spare << 20);
	for (int n = 0; n < RINGS; n++)
		ring();
	pid_t child = fork();
	if (child == 0) {
		execvp(words[2], words + 2);
		_exit(127);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
