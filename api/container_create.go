package api

import (
	"encoding/json"
	"strings"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"skiff/container"
	"skiff/internal/errs"
)

// createBody is the body of POST /containers/create in all versions. Fields that the newest version no longer has, or
// that old clients send in another form, stand beside the embedded structure and hide its fields of the same name.
type createBody struct {
	*apicontainer.Config
	HostConfig       *apicontainer.HostConfig
	NetworkingConfig *network.NetworkingConfig

	Cmd        words
	Entrypoint words
	MacAddress string // of the whole container, until 1.51
}

// words is a list of strings that may also be given as one string.
type words []string

// UnmarshalJSON takes both forms.
func (w *words) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*w = make(words, 1)
		return json.Unmarshal(b, &(*w)[0])
	}
	return json.Unmarshal(b, (*[]string)(w))
}

// options checks the body and brings it into the newest version's form. cgroupV2 is the host's mode: it decides a default
// that old clients rely on.
func (b *createBody) options(v Version, cgroupV2 bool) (opt container.CreateOptions, warnings []string, err error) {
	if b.Config == nil {
		if b.Cmd == nil && b.Entrypoint == nil {
			return opt, nil, errs.New(errs.Invalid, "config cannot be empty in order to create a container")
		}
		b.Config = &apicontainer.Config{}
	}
	b.Config.Cmd, b.Config.Entrypoint = b.Cmd, b.Entrypoint
	if b.HostConfig == nil {
		b.HostConfig = &apicontainer.HostConfig{}
	}
	if b.NetworkingConfig == nil {
		b.NetworkingConfig = &network.NetworkingConfig{}
	}
	b.normalizeNetwork()
	if p := b.HostConfig.PidsLimit; p != nil && *p <= 0 {
		b.HostConfig.PidsLimit = nil // every way to say "no limit"
	}
	if err := checkMounts(v, b.HostConfig.Mounts); err != nil {
		return opt, nil, err
	}
	b.forgetNewer(v, cgroupV2)
	if v < 44 && len(b.NetworkingConfig.EndpointsConfig) > 1 {
		return opt, nil, errs.New(errs.Invalid, "connecting a new container to several networks needs API version 1.44 or newer, this request is of version %s", v)
	}
	warnings, err = b.moveMAC(v)
	if err != nil {
		return opt, nil, err
	}
	return container.CreateOptions{Config: b.Config, HostConfig: b.HostConfig, NetworkingConfig: b.NetworkingConfig}, warnings, nil
}

// normalizeNetwork gives the default network its real name, in the mode and among the endpoints.
func (b *createBody) normalizeNetwork() {
	mode := &b.HostConfig.NetworkMode
	if *mode != "" && *mode != network.NetworkDefault {
		return
	}
	*mode = network.NetworkBridge
	if ep, ok := b.NetworkingConfig.EndpointsConfig[network.NetworkDefault]; ok {
		delete(b.NetworkingConfig.EndpointsConfig, network.NetworkDefault)
		b.NetworkingConfig.EndpointsConfig[network.NetworkBridge] = ep
	}
}

// checkMounts refuses mounts that the request's version can't have.
func checkMounts(v Version, mounts []mount.Mount) error {
	for _, m := range mounts {
		if v < 45 && m.VolumeOptions != nil && m.VolumeOptions.Subpath != "" {
			return errs.New(errs.Invalid, "VolumeOptions.Subpath needs API v1.45 or newer")
		}
		if v < 48 && m.Type == mount.TypeImage {
			return errs.New(errs.Invalid, `Mount type "Image" needs API v1.48 or newer`)
		}
		if v < 42 {
			continue
		}
		for typ, set := range map[mount.Type]bool{
			mount.TypeBind: m.BindOptions != nil, mount.TypeVolume: m.VolumeOptions != nil, mount.TypeTmpfs: m.TmpfsOptions != nil,
		} {
			if set && m.Type != typ && (m.Type != mount.TypeCluster || typ != mount.TypeVolume) {
				return errs.New(errs.Invalid, "mount of %q: options of type %q don't fit its type %q", m.Target, typ, m.Type)
			}
		}
	}
	return nil
}

// forgetNewer drops what came into the API after the request's version: a client that sends it does not mean it.
func (b *createBody) forgetNewer(v Version, cgroupV2 bool) {
	h := b.HostConfig
	if v < 41 && !cgroupV2 && h.CgroupnsMode == "" {
		h.CgroupnsMode = apicontainer.CgroupnsModeHost
	}
	if v < 42 {
		h.ConsoleSize = [2]uint{}
	}
	if v < 43 {
		h.Annotations = nil
	}
	if v < 44 && b.Healthcheck != nil {
		b.Healthcheck.StartInterval = 0
	}
	if v < 56 {
		h.Umask = nil
	}
	for i := range h.Mounts {
		m := &h.Mounts[i]
		if o := m.BindOptions; o != nil {
			o.CreateMountpoint = o.CreateMountpoint && v >= 42
			o.ReadOnlyForceRecursive = o.ReadOnlyForceRecursive && v >= 44
			o.ReadOnlyNonRecursive = o.ReadOnlyNonRecursive && v >= 44
		}
		if o := m.TmpfsOptions; o != nil && v < 46 {
			o.Options = nil
		}
	}
	for _, ep := range b.NetworkingConfig.EndpointsConfig {
		if ep != nil && v < 44 { // endpoints had no address of their own to set
			ep.MacAddress = nil
		}
		if ep != nil && v < 48 {
			ep.GwPriority = 0
		}
	}
}

// moveMAC moves the container-wide MAC address of versions before 1.52 to the endpoint that it means.
func (b *createBody) moveMAC(v Version) (warnings []string, err error) {
	if b.MacAddress == "" || v >= 52 {
		return nil, nil
	}
	mode := b.HostConfig.NetworkMode
	isNetwork := mode.IsBridge() || mode.IsUserDefined()
	if v >= 44 {
		warnings = []string{"The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."}
	} else if !isNetwork {
		return nil, errs.New(errs.Invalid, "conflicting options: mac-address and the network mode")
	}
	if !isNetwork {
		return warnings, nil
	}
	var mac network.HardwareAddr
	if err := mac.UnmarshalText([]byte(b.MacAddress)); err != nil {
		return nil, errs.New(errs.Invalid, "%s is not a valid mac address", b.MacAddress)
	}
	if b.NetworkingConfig.EndpointsConfig == nil {
		b.NetworkingConfig.EndpointsConfig = map[string]*network.EndpointSettings{}
	}
	ep := b.NetworkingConfig.EndpointsConfig[mode.NetworkName()]
	if ep == nil {
		ep = &network.EndpointSettings{}
		b.NetworkingConfig.EndpointsConfig[mode.NetworkName()] = ep
	}
	if len(ep.MacAddress) > 0 && !strings.EqualFold(ep.MacAddress.String(), mac.String()) {
		return nil, errs.New(errs.Invalid, "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty")
	}
	ep.MacAddress = mac
	return warnings, nil
}
