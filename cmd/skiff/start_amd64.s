#include "textflag.h"

// start is where the kernel enters the program (-E in the Makefile): prctl(PR_SET_TIMERSLACK, 1 ms), then Go's own beginning. What
// for is in docs/decisions/0021.
TEXT ·start(SB), NOSPLIT|NOFRAME, $0
	MOVL $157, AX
	MOVL $29, DI
	MOVL $1000000, SI
	SYSCALL
	JMP  _rt0_amd64_linux(SB)
