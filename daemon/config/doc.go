// Package config reads the daemon's configuration: flags named as dockerd's and a JSON file with dockerd's keys.
//
// One table (options.go) names every option: its flag, its key, where it goes in Config, and whether a reload may change it.
// What dockerd knows and skiff does not have yet is in a second table (missing.go): it is refused by its name, unless it asks
// for what skiff does anyway. A key that is in neither, and one that is also given as a flag, are refused with dockerd's
// texts. Nothing here touches the system but to read the file.
package config
