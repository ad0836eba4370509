package runtime

import "os"

// Pause is a point where the child waits for its parent: it writes a byte to Tell and reads one from Wait.
type Pause struct{ Tell, Wait *os.File }

// Gate separates creating a container from starting it. The child reads a byte from Wait before execve. From then on
// errors go to Errors (8 bytes, see launch.Program.Failure) and launch.Program.Start has returned already; the last
// writer of Errors vanishes when execve succeeded.
type Gate struct{ Wait, Errors *os.File }
