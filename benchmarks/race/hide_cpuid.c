// Makes a newer x86-64 processor look like one with AVX2 and FMA, but without AVX-VNNI, AVX-512 and
// AMX, to every library of a process: built as a shared library and named in LD_PRELOAD.
//
// Linux can make CPUID fault (arch_prctl ARCH_SET_CPUID) where the processor supports it. The fault
// arrives as SIGSEGV at the instruction; the handler executes CPUID itself, clears the bits to be
// hidden, and goes on behind it. The setting belongs to a thread, is inherited by the threads and
// processes it makes, and is dropped by execve, so each program needs the preload.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012  // <asm/prctl.h>
#define BIT(n) (1u << (n))

typedef struct {
  uint32_t eax, ebx, ecx, edx;
} Registers;

static Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r = {leaf, 0, subleaf, 0};
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
  __asm__ volatile("cpuid" : "+a"(r.eax), "=b"(r.ebx), "+c"(r.ecx), "=d"(r.edx));
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
  return r;
}

// Leaf 7 as of the Intel manual, volume 2A, CPUID.
static Registers hidden(uint32_t leaf, uint32_t subleaf) {
  Registers r = cpuid(leaf, subleaf);
  if (leaf == 7 && subleaf == 0) {
    // AVX512: F DQ IFMA PF ER CD BW VL
    r.ebx &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
    // AVX512: VBMI VBMI2 VNNI BITALG VPOPCNTDQ; GFNI
    r.ecx &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14) | BIT(8));
    // AVX512: 4VNNIW 4FMAPS VP2INTERSECT FP16; AMX: BF16 TILE INT8
    r.edx &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(23) | BIT(22) | BIT(24) | BIT(25));
  } else if (leaf == 7 && subleaf == 1) {
    // AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA; in edx AVX-VNNI-INT8, -INT16, AMX-COMPLEX, AVX10
    r.eax &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23));
    r.edx = 0;
  } else if (leaf == 0x1d || leaf == 0x1e || leaf == 0x24) {  // tiles, AVX10
    memset(&r, 0, sizeof r);
  }
  return r;
}

static void on_fault(int number, siginfo_t* info, void* context) {
  (void)info;
  greg_t* regs = ((ucontext_t*)context)->uc_mcontext.gregs;
  const uint8_t* code = (const uint8_t*)regs[REG_RIP];
  if (code[0] != 0x0f || code[1] != 0xa2) {  // not CPUID: let it fault again, and end the process
    signal(number, SIG_DFL);
    return;
  }
  const Registers r = hidden((uint32_t)regs[REG_RAX], (uint32_t)regs[REG_RCX]);
  regs[REG_RAX] = r.eax;
  regs[REG_RBX] = r.ebx;
  regs[REG_RCX] = r.ecx;
  regs[REG_RDX] = r.edx;
  regs[REG_RIP] += 2;
}

__attribute__((constructor)) static void start(void) {
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
  sigaction(SIGSEGV, &action, NULL);
  if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) != 0) {
    perror("hide_cpuid: this processor or kernel cannot make CPUID fault");
    exit(1);
  }
}
