/* The floor: the least work that starts a KVM guest at all.
 *
 * Memory slot first, one vCPU, no interrupt controller. The guest's first and only instruction is
 * an `out`, whose exit is seen here: one stamp of CLOCK_MONOTONIC, then one line on standard
 * output, the stamp in nanoseconds. Its first byte is the floor's first console byte. What a
 * monitor does beyond this (parsing, loading, protecting, supervising) is what it is measured for.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const unsigned char guest[] = {0xe6, 0xe9}; /* out 0xe9, al */

static int must(int result, const char *what) {
  if (result < 0) {
    perror(what);
    exit(125);
  }
  return result;
}

static void *map(size_t size, int flags, int fd) {
  void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (at == MAP_FAILED)
    must(-1, "mmap");
  return at;
}

int main(void) {
  int kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
  int vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");

  unsigned char *ram = map(0x1000, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  memcpy(ram, guest, sizeof guest);
  struct kvm_userspace_memory_region slot = {
      .memory_size = 0x1000, .userspace_addr = (unsigned long)ram};
  must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");

  int vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
  int run_size = must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
  struct kvm_run *run = map(run_size, MAP_SHARED, vcpu);

  struct kvm_sregs sregs;
  must(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
  sregs.cs.base = 0;
  sregs.cs.selector = 0;
  must(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
  struct kvm_regs regs = {.rip = 0, .rflags = 2};
  must(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");

  must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (run->exit_reason != KVM_EXIT_IO || run->io.port != 0xe9) {
    fprintf(stderr, "the guest left with reason %u instead of its `out`\n", run->exit_reason);
    return 125;
  }

  char line[32];
  int len = snprintf(line, sizeof line, "%llu\n",
                     now.tv_sec * 1000000000ULL + (unsigned long long)now.tv_nsec);
  return write(STDOUT_FILENO, line, len) == len ? 0 : 125;
}
