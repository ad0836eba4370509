package cli

// groups lists the management commands.
func groups() []group {
	return []group{
		{"container", "Manage containers"},
		{"image", "Manage images"},
		{"system", "Manage the engine"},
	}
}

// specs is the table of commands.
func specs() []spec {
	const many = -1
	return []spec{
		{parent: "container", name: "run", top: "run", args: "[OPTIONS] IMAGE [COMMAND] [ARG...]", short: "Create a container of an image and run it", common: true, min: 1, max: many, setup: setupRun},
		{parent: "container", name: "exec", top: "exec", args: "[OPTIONS] CONTAINER COMMAND [ARG...]", short: "Run a further command in a running container", common: true, min: 2, max: many, setup: setupExec},
		{parent: "container", name: "ls", top: "ps", aliases: "ps list", args: "[OPTIONS]", short: "List containers", common: true, setup: setupPs},
		{parent: "image", name: "pull", top: "pull", args: "[OPTIONS] NAME[:TAG|@DIGEST]", short: "Get an image from a registry", common: true, min: 1, max: 1, setup: setupPull},
		{parent: "image", name: "ls", top: "images", aliases: "list", args: "[OPTIONS] [REPOSITORY[:TAG]]", short: "List images", common: true, max: 1, setup: setupImages},
		{name: "version", args: "[OPTIONS]", short: "Print the versions of client and engine", common: true, setup: setupVersion},
		{parent: "system", name: "info", top: "info", args: "[OPTIONS]", short: "Print what the engine is and has", common: true, setup: setupInfo},

		{parent: "container", name: "attach", top: "attach", args: "[OPTIONS] CONTAINER", short: "Connect the terminal with a running container", min: 1, max: 1, setup: setupAttach},
		{parent: "container", name: "create", top: "create", args: "[OPTIONS] IMAGE [COMMAND] [ARG...]", short: "Create a container", min: 1, max: many, setup: setupCreate},
		{parent: "container", name: "inspect", args: "[OPTIONS] CONTAINER [CONTAINER...]", short: "Print all that is known of containers", min: 1, max: many, setup: setupInspectContainer},
		{parent: "container", name: "kill", top: "kill", args: "[OPTIONS] CONTAINER [CONTAINER...]", short: "Send a signal to running containers", min: 1, max: many, setup: setupKill},
		{parent: "container", name: "logs", top: "logs", args: "[OPTIONS] CONTAINER", short: "Print what a container wrote", min: 1, max: 1, setup: setupLogs},
		{parent: "container", name: "restart", top: "restart", args: "[OPTIONS] CONTAINER [CONTAINER...]", short: "Stop and start containers", min: 1, max: many, setup: setupRestart},
		{parent: "container", name: "rm", top: "rm", aliases: "remove", args: "[OPTIONS] CONTAINER [CONTAINER...]", short: "Remove containers", min: 1, max: many, setup: setupRm},
		{parent: "container", name: "start", top: "start", args: "[OPTIONS] CONTAINER [CONTAINER...]", short: "Start stopped containers", min: 1, max: many, setup: setupStart},
		{parent: "container", name: "stop", top: "stop", args: "[OPTIONS] CONTAINER [CONTAINER...]", short: "Stop running containers", min: 1, max: many, setup: setupStop},
		{parent: "container", name: "top", top: "top", args: "CONTAINER [ps OPTIONS]", short: "List the processes of a container", min: 1, max: many, setup: setupTop},
		{parent: "container", name: "wait", top: "wait", args: "CONTAINER [CONTAINER...]", short: "Wait until containers stop, and print their exit codes", min: 1, max: many, setup: setupWait},

		{parent: "image", name: "history", top: "history", args: "[OPTIONS] IMAGE", short: "List the steps that made an image", min: 1, max: 1, setup: setupHistory},
		{parent: "image", name: "import", top: "import", args: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]", short: "Make an image of a file system's tar", min: 1, max: many, setup: setupImport},
		{parent: "image", name: "inspect", args: "[OPTIONS] IMAGE [IMAGE...]", short: "Print all that is known of images", min: 1, max: many, setup: setupInspectImage},
		{parent: "image", name: "load", top: "load", args: "[OPTIONS]", short: "Load images from a tar", setup: setupLoad},
		{parent: "image", name: "rm", top: "rmi", aliases: "remove", args: "[OPTIONS] IMAGE [IMAGE...]", short: "Remove images", min: 1, max: many, setup: setupRmi},
		{parent: "image", name: "save", top: "save", args: "[OPTIONS] IMAGE [IMAGE...]", short: "Write images as a tar", min: 1, max: many, setup: setupSave},
		{parent: "image", name: "tag", top: "tag", args: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", short: "Give an image another name", min: 2, max: 2, setup: setupTag},

		{parent: "system", name: "df", args: "[OPTIONS]", short: "Print what takes how much disk space", setup: setupDf},
		{parent: "system", name: "dial-stdio", args: "", short: "Connect standard input and output with the engine's socket", setup: setupDialStdio},
		{parent: "system", name: "events", top: "events", args: "[OPTIONS]", short: "Print what happens, as it happens", setup: setupEvents},
		{name: "inspect", args: "[OPTIONS] NAME|ID [NAME|ID...]", short: "Print all that is known of containers and images", min: 1, max: many, setup: setupInspect},
		{name: "completion", args: "bash|zsh|fish", short: "Print a script that completes skiff's commands in a shell", min: 1, max: 1, setup: setupCompletion},
	}
}
