#include "textflag.h"

// func cloneInto(args *cloneArgs, size uintptr, im *image, entry uintptr) uintptr
//
// The child begins on the stack that args give it. It calls entry by Go's internal convention (argument in R0): the wrapper that a
// call by name would go through is instrumented by the race detector, which the child has not.
TEXT ·cloneInto(SB), NOSPLIT, $0-40
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	im+16(FP), R20
	MOVD	entry+24(FP), R21
	MOVD	$435, R8	// clone3
	SVC
	CBNZ	R0, parent
	MOVD	R20, R0
	BL	(R21)
	UNDEF
parent:
	MOVD	R0, ret+32(FP)
	RET

// func sys(nr, a1, a2, a3, a4, a5, a6 uintptr) uintptr
TEXT ·sys(SB), NOSPLIT, $0-64
	MOVD	nr+0(FP), R8
	MOVD	a1+8(FP), R0
	MOVD	a2+16(FP), R1
	MOVD	a3+24(FP), R2
	MOVD	a4+32(FP), R3
	MOVD	a5+40(FP), R4
	MOVD	a6+48(FP), R5
	SVC
	MOVD	R0, ret+56(FP)
	RET
