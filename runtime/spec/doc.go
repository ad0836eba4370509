// Package spec turns a container's configuration, in the Engine API's own structures, into an OCI runtime specification:
// what dockerd makes of the same structures, field by field.
//
// [Validate] says at create time what is wrong with a configuration or can't be given by this machine; [Build] makes the
// specification at start; [ExecProcess] that of a further process. [Resources] and [CgroupsPath] are parts of Build that the
// maker of the control group needs before. The configuration is expected complete: merged with the image's, defaults
// filled in. A field of HostConfig that skiff doesn't honour is refused by its name (errs.NotImplemented), never ignored;
// what belongs to other packages (ports, logs, restarts) is listed in the test that walks all fields.
//
// Nothing is changed on the machine. What is read: /etc/passwd and /etc/group of the container's own root, through a
// descriptor of that root that no link leads out of, and the numbers of the devices that are named. [Kernel] is what the
// machine can do, looked up once by [DetectKernel].
//
// What the launch program makes of the specification beyond the OCI text: a bind whose source is /proc/PID/root/… lies in
// the mount namespace of that process; a working folder that is missing is made; the devices of the OCI default set
// (null, zero, full, random, urandom, tty, ptmx) are made without being listed.
package spec
