package runtime

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// mountOptions are the options of a mount, sorted by where they go.
type mountOptions struct {
	flags   uintptr // MS_* of mount(2), without propagation and bind
	cleared uintptr // MS_* that an option takes away ("exec" after a bind of a noexec folder)
	given   bool    // some flag was set or cleared
	bind    bool
	rec     bool
	attrSet uint64 // MOUNT_ATTR_* for the mount and all below it ("rro")
	attrClr uint64
	spread  []uintptr // propagation, in order
	data    []string  // for the file system
	idmap   bool
	ridmap  bool
}

// flagOption is an option that sets or clears MS_* flags.
type flagOption struct {
	clear bool
	flag  uintptr
}

var flagOptions = map[string]flagOption{
	"async": {true, unix.MS_SYNCHRONOUS}, "sync": {false, unix.MS_SYNCHRONOUS},
	"atime": {true, unix.MS_NOATIME}, "noatime": {false, unix.MS_NOATIME},
	"dev": {true, unix.MS_NODEV}, "nodev": {false, unix.MS_NODEV},
	"diratime": {true, unix.MS_NODIRATIME}, "nodiratime": {false, unix.MS_NODIRATIME},
	"dirsync": {false, unix.MS_DIRSYNC}, "exec": {true, unix.MS_NOEXEC}, "noexec": {false, unix.MS_NOEXEC},
	"iversion": {false, unix.MS_I_VERSION}, "noiversion": {true, unix.MS_I_VERSION},
	"lazytime": {false, unix.MS_LAZYTIME}, "nolazytime": {true, unix.MS_LAZYTIME},
	"loud": {true, unix.MS_SILENT}, "silent": {false, unix.MS_SILENT},
	"mand": {false, unix.MS_MANDLOCK}, "nomand": {true, unix.MS_MANDLOCK},
	"relatime": {false, unix.MS_RELATIME}, "norelatime": {true, unix.MS_RELATIME},
	"strictatime": {false, unix.MS_STRICTATIME}, "nostrictatime": {true, unix.MS_STRICTATIME},
	"suid": {true, unix.MS_NOSUID}, "nosuid": {false, unix.MS_NOSUID},
	"ro": {false, unix.MS_RDONLY}, "rw": {true, unix.MS_RDONLY},
	"symfollow": {true, unix.MS_NOSYMFOLLOW}, "nosymfollow": {false, unix.MS_NOSYMFOLLOW},
	"remount": {false, unix.MS_REMOUNT}, "acl": {false, unix.MS_POSIXACL}, "noacl": {true, unix.MS_POSIXACL},
}

var spreadOptions = map[string]uintptr{
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC, "shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC, "unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// attrOption is a recursive option: it sets and clears MOUNT_ATTR_*.
type attrOption struct{ set, clr uint64 }

var attrOptions = map[string]attrOption{
	"rro": {unix.MOUNT_ATTR_RDONLY, 0}, "rrw": {0, unix.MOUNT_ATTR_RDONLY},
	"rnosuid": {unix.MOUNT_ATTR_NOSUID, 0}, "rsuid": {0, unix.MOUNT_ATTR_NOSUID},
	"rnodev": {unix.MOUNT_ATTR_NODEV, 0}, "rdev": {0, unix.MOUNT_ATTR_NODEV},
	"rnoexec": {unix.MOUNT_ATTR_NOEXEC, 0}, "rexec": {0, unix.MOUNT_ATTR_NOEXEC},
	"rnodiratime": {unix.MOUNT_ATTR_NODIRATIME, 0}, "rdiratime": {0, unix.MOUNT_ATTR_NODIRATIME},
	"rrelatime": {unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR__ATIME}, "rnorelatime": {0, 0},
	"rnoatime": {unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR__ATIME}, "ratime": {0, unix.MOUNT_ATTR__ATIME},
	"rstrictatime": {unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME}, "rnostrictatime": {0, unix.MOUNT_ATTR__ATIME},
	"rnosymfollow": {unix.MOUNT_ATTR_NOSYMFOLLOW, 0}, "rsymfollow": {0, unix.MOUNT_ATTR_NOSYMFOLLOW},
}

func parseOptions(m *specs.Mount) (mountOptions, error) {
	var o mountOptions
	for _, opt := range m.Options {
		if f, ok := flagOptions[opt]; ok {
			o.given = true
			if f.clear {
				o.flags &^= f.flag
				o.cleared |= f.flag
			} else {
				o.flags |= f.flag
				o.cleared &^= f.flag
			}
			continue
		}
		if s, ok := spreadOptions[opt]; ok {
			o.spread = append(o.spread, s)
			continue
		}
		if a, ok := attrOptions[opt]; ok {
			o.attrSet = o.attrSet&^a.clr | a.set
			o.attrClr = o.attrClr&^a.set | a.clr
			continue
		}
		switch opt {
		case "defaults", "":
		case "bind":
			o.bind = true
		case "rbind":
			o.bind, o.rec = true, true
		case "idmap":
			o.idmap = true
		case "ridmap":
			o.idmap, o.ridmap = true, true
		case "tmpcopyup", "copy-symlink", "dest-nofollow", "src-nofollow":
			return o, errs.New(errs.NotImplemented, "mount option %q of %s is not supported", opt, m.Destination)
		default:
			o.data = append(o.data, opt)
		}
	}
	if m.Type == "bind" || len(m.Type) == 0 && m.Source != "" && !o.bind {
		o.bind = true
	}
	if o.idmap || len(m.UIDMappings)+len(m.GIDMappings) > 0 {
		return o, errs.New(errs.NotImplemented, "id-mapped mounts (%s) are not supported", m.Destination)
	}
	return o, nil
}

// text is the data of mount(2).
func (o *mountOptions) text() string { return strings.Join(o.data, ",") }

// attrs translates the flags of one mount to what mount_setattr(2) takes.
func (o *mountOptions) attrs() (set, clr uint64) {
	for _, t := range []struct {
		flag uintptr
		attr uint64
	}{
		{unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY},
		{unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID},
		{unix.MS_NODEV, unix.MOUNT_ATTR_NODEV},
		{unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC},
		{unix.MS_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME},
		{unix.MS_NOSYMFOLLOW, unix.MOUNT_ATTR_NOSYMFOLLOW},
	} {
		if o.flags&t.flag != 0 {
			set |= t.attr
		}
		if o.cleared&t.flag != 0 {
			clr |= t.attr
		}
	}
	switch {
	case o.flags&unix.MS_NOATIME != 0:
		set, clr = set|unix.MOUNT_ATTR_NOATIME, clr|unix.MOUNT_ATTR__ATIME
	case o.flags&unix.MS_STRICTATIME != 0:
		set, clr = set|unix.MOUNT_ATTR_STRICTATIME, clr|unix.MOUNT_ATTR__ATIME
	case o.flags&unix.MS_RELATIME != 0, o.cleared&unix.MS_NOATIME != 0:
		clr |= unix.MOUNT_ATTR__ATIME // and nothing set: relatime is 0
	}
	return set, clr
}

// bindFlags are the flags that a bind remount can set, for kernels without mount_setattr(2).
const bindFlags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME

// MountOptions lists the options that are not handed to the file system, sorted.
func MountOptions() []string {
	out := []string{"bind", "rbind", "defaults"}
	out = append(append(append(out, sortedKeys(flagOptions)...), sortedKeys(spreadOptions)...), sortedKeys(attrOptions)...)
	slices.Sort(out)
	return out
}
