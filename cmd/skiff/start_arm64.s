#include "textflag.h"

// start is where the kernel enters the program (-E in the Makefile): prctl(PR_SET_TIMERSLACK, 1 ms), then Go's own beginning. What
// for is in docs/decisions/0021.
TEXT ·start(SB), NOSPLIT|NOFRAME, $0
	MOVD $167, R8
	MOVD $29, R0
	MOVD $1000000, R1
	SVC
	B    _rt0_arm64_linux(SB)
