package api

// addRoutes registers the handlers of what there is.
func (s *Server) addRoutes() {
	s.table.add("GET /_ping", s.ping)
	s.table.add("HEAD /_ping", s.ping)
	if s.System != nil {
		s.table.add("GET /info", s.info)
		s.table.add("GET /version", s.versionInfo)
	}
	if s.Login != nil {
		s.table.add("POST /auth", s.auth)
	}
	if s.Events != nil {
		s.table.add("GET /events", s.events)
	}
	if s.Networks != nil {
		s.table.add("GET /networks", s.networksJSON)
		s.table.add("GET /networks/{name}", s.networkJSON)
	}
	s.table.add("GET /volumes", s.volumesJSON)
	if s.Containers != nil {
		s.addContainers()
	}
	if s.Execs != nil {
		s.table.add("POST /containers/{name}/exec", s.execCreate)
		s.table.add("POST /exec/{name}/start", s.execStart)
		s.table.add("POST /exec/{name}/resize", s.execResize)
		s.table.add("GET /exec/{name}/json", s.execJSON)
	}
	if s.Images != nil {
		s.addImages()
	}
	if s.Images != nil && s.Containers != nil {
		s.table.add("GET /system/df", s.diskUsage)
	}
}

func (s *Server) addContainers() {
	s.table.add("GET /containers/json", s.containersJSON)
	s.table.add("POST /containers/create", s.containersCreate)
	s.table.add("GET /containers/{name}/json", s.containerJSON)
	s.table.add("GET /containers/{name}/logs", s.containerLogs)
	s.table.add("GET /containers/{name}/top", s.containerTop)
	s.table.add("GET /containers/{name}/attach/ws", s.containerAttachWebsocket)
	s.table.add("POST /containers/{name}/attach", s.containerAttach)
	s.table.add("POST /containers/{name}/start", s.containerStart)
	s.table.add("POST /containers/{name}/stop", s.containerStop)
	s.table.add("POST /containers/{name}/restart", s.containerRestart)
	s.table.add("POST /containers/{name}/kill", s.containerKill)
	s.table.add("POST /containers/{name}/wait", s.containerWait)
	s.table.add("POST /containers/{name}/resize", s.containerResize)
	s.table.add("DELETE /containers/{name}", s.containerDelete)
	s.addOptionalContainers()
}

func (s *Server) addImages() {
	s.table.add("GET /images/json", s.imagesJSON)
	s.table.add("GET /images/get", s.imagesGet)
	s.table.add("POST /images/create", s.imagesCreate)
	s.table.add("POST /images/load", s.imagesLoad)
	s.table.add("GET /images/{name}/json", s.imageJSON)
	s.table.add("GET /images/{name}/history", s.imageHistory)
	s.table.add("GET /images/{name}/get", s.imageGet)
	s.table.add("POST /images/{name}/tag", s.imageTag)
	s.table.add("DELETE /images/{name}", s.imageDelete)
}
