package container

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"

	"skiff/internal/errs"
)

const nameChars = `[a-zA-Z0-9][a-zA-Z0-9_.-]`

var validName = regexp.MustCompile(`^/?` + nameChars + `+$`)

// newID is a random id of 64 hex digits. Its first twelve are not all decimal: a hostname and a name that is a number
// confuse programs.
func newID() string {
	for {
		var b [32]byte
		_, _ = rand.Read(b[:]) // never fails
		id := hex.EncodeToString(b[:])
		if strings.ContainsAny(id[:12], "abcdef") {
			return id
		}
	}
}

// checkName refuses what can't be a container's name, and drops the slash that the API shows before it.
func checkName(name string) (string, error) {
	if !validName.MatchString(name) {
		return "", errs.New(errs.Invalid, "Invalid container name (%s), only %s are allowed", name, nameChars)
	}
	return strings.TrimPrefix(name, "/"), nil
}

// randomName makes a name such as "quiet_noether"; from the second attempt on with a digit.
func randomName(attempt int) string {
	var b [6]byte
	_, _ = rand.Read(b[:])
	name := adjectives[int(binary.LittleEndian.Uint16(b[:]))%len(adjectives)] + "_" +
		surnames[int(binary.LittleEndian.Uint16(b[2:]))%len(surnames)]
	if attempt > 0 {
		name += string(rune('0' + b[4]%10))
	}
	return name
}

// shortID is how ids are shown.
func shortID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

func itoa(n int) string { return strconv.Itoa(n) }
