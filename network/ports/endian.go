package ports

import "encoding/binary"

// littleEndian is the machine's byte order, as /proc/net shows it.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1
