package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/mount"

	"skiff/internal/errs"
)

// flagKinds are the flags of a tmpfs that exclude each other, and bind themselves.
var flagKinds = map[string]string{
	"ro": "access", "rw": "access", "exec": "exec", "noexec": "exec", "suid": "suid", "nosuid": "suid", "dev": "dev",
	"nodev": "dev", "async": "sync", "sync": "sync", "dirsync": "dirsync", "remount": "remount", "mand": "mand",
	"nomand": "mand", "atime": "atime", "noatime": "atime", "diratime": "diratime", "nodiratime": "diratime",
	"bind": "bind", "rbind": "bind", "private": "propagation", "rprivate": "propagation", "shared": "propagation",
	"rshared": "propagation", "slave": "propagation", "rslave": "propagation", "unbindable": "propagation",
	"runbindable": "propagation", "relatime": "relatime", "norelatime": "relatime", "strictatime": "relatime",
	"nostrictatime": "relatime", "defaults": "defaults",
}

// tmpfsKeys are the options with a value that a tmpfs takes.
var tmpfsKeys = []string{"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"}

// tmpfsOptions puts Docker's defaults before the user's options; of those that exclude each other the last one counts.
func tmpfsOptions(opts []string) ([]string, error) {
	all := append([]string{"noexec", "nosuid", "nodev", "rprivate"}, opts...)
	kinds := map[string]bool{}
	var out []string
	for _, o := range slices.Backward(all) {
		key, val, hasVal := strings.Cut(o, "=")
		kind, isFlag := flagKinds[o]
		switch {
		case isFlag:
		case hasVal && val != "" && slices.Contains(tmpfsKeys, key):
			kind = key
		default:
			return nil, errs.New(errs.Invalid, "invalid tmpfs option %q", o)
		}
		if !kinds[kind] {
			kinds[kind] = true
			out = append(out, o)
		}
	}
	slices.Reverse(out)
	return out, nil
}

// convertTmpfs writes the options of the API's structure as mount options.
func convertTmpfs(o *mount.TmpfsOptions, readOnly bool) []string {
	var out []string
	if readOnly {
		out = append(out, "ro")
	}
	if o == nil {
		return out
	}
	if o.Mode != 0 {
		out = append(out, fmt.Sprintf("mode=%o", o.Mode))
	}
	if o.SizeBytes != 0 {
		out = append(out, "size="+size(o.SizeBytes))
	}
	for _, kv := range o.Options {
		out = append(out, strings.Join(kv, "="))
	}
	return out
}

// size writes bytes in the largest unit that leaves nothing over.
func size(n int64) string {
	unit := ""
	for _, u := range []string{"k", "m", "g"} {
		if n%1024 != 0 {
			break
		}
		n, unit = n/1024, u
	}
	return strconv.FormatInt(n, 10) + unit
}
