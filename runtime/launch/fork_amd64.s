#include "textflag.h"

// func cloneInto(args *cloneArgs, size uintptr, im *image, entry uintptr) uintptr
//
// The child begins on the stack that args give it. It calls entry by Go's internal convention (argument in AX, g in R14,
// X15 zero): the wrapper that a call by name would go through is instrumented by the race detector, which the child has not.
TEXT ·cloneInto(SB), NOSPLIT, $0-40
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	im+16(FP), R12
	MOVQ	entry+24(FP), R13
	MOVQ	$435, AX	// clone3
	SYSCALL
	TESTQ	AX, AX
	JNE	parent
	XORPS	X15, X15
	XORL	R14, R14
	MOVQ	R12, AX
	CALL	R13
	INT	$3
parent:
	MOVQ	AX, ret+32(FP)
	RET

// func sys(nr, a1, a2, a3, a4, a5, a6 uintptr) uintptr
TEXT ·sys(SB), NOSPLIT, $0-64
	MOVQ	nr+0(FP), AX
	MOVQ	a1+8(FP), DI
	MOVQ	a2+16(FP), SI
	MOVQ	a3+24(FP), DX
	MOVQ	a4+32(FP), R10
	MOVQ	a5+40(FP), R8
	MOVQ	a6+48(FP), R9
	SYSCALL
	MOVQ	AX, ret+56(FP)
	RET
