// Package seccomp turns a container's seccomp profile into the classic BPF program that the kernel runs before each
// system call, without libseccomp: the verdicts are libseccomp's and runc's, the program is made here.
//
// A profile is an OCI structure ([specs.LinuxSeccomp]). [Default] gives Docker's own for a set of capabilities, [Custom]
// reads Docker's JSON form. [Assemble] makes the program, [Cache] remembers programs by the profile's content.
//
// What a filter looks like: the architecture is checked first (a foreign one kills the thread), then the number is
// looked up by binary search in intervals of numbers that share a verdict, then the arguments are compared where rules have
// conditions. Rules for one call are OR-ed, the conditions of one rule AND-ed; a rule that names an argument twice
// counts as one rule for each condition, as runc has it; a rule without conditions wins over those that have some; a
// name that an architecture does not have is skipped there. Numbers above the highest one of the profile give ENOSYS, so
// that a libc can fall back when the kernel is newer than the profile (not if the default action lets calls pass, or
// gives ENOSYS itself).
//
// The package calls no kernel; loading the filter is the launch program's business.
package seccomp
