// Package cgroup makes, limits, reads and removes control groups on cgroup v1, v2 and hybrid hosts.
//
// A [Host] is what Detect found mounted. A [Cgroup] is one container's control group in all hierarchies that it has a
// folder in. Nothing is kept in memory that the kernel does not hold: [Host.Open] finds a group again after a restart.
//
// Which hierarchies get a folder: memory, pids, cpu, cpuacct, blkio and devices always (limits, statistics, fairness between
// containers, and device rules, which are always enforced); cgroup v2's always if it is mounted, even without controllers:
// a process is born in it by CLONE_INTO_CGROUP, and it kills and freezes the whole group at once; freezer only where v2
// can't do that; name=systemd only where systemd runs; cpuset, hugetlb, net_cls, net_prio, rdma and misc only when a limit
// asks for them (Update adds them to a running group). perf_event never.
//
// What it costs, measured on the reference machine (6.18, v1 controllers mounted separately, rcu_expedited=1): a folder
// 15–40 µs, an entry 10–50 µs (by tasks as by cgroup.procs), a removal 15–40 µs; Create with the device rules of an
// ordinary container, and Remove, 0.4 ms together. Nothing is shortened by making entries earlier, and a pool of
// folders would save 0.2 ms of a 9 ms run: not worth its trouble.
//
// A limit that this kernel can't give is a warning in Docker's words, never an error. A limit that the kernel refuses is
// an error. Without any cgroup mounted, groups are empty, with one warning.
package cgroup
