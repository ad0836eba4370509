package api

import (
	"context"
	"errors"

	"golang.org/x/net/websocket"

	"skiff/container"
)

// runWebsocket upgrades the connection to a websocket and runs a session on it, with binary messages. There is no check of
// the Origin header: whoever reaches this socket may do everything anyway.
func (c *call) runWebsocket(sess container.Session) error {
	started := false
	c.wrote = true
	server := websocket.Server{Handler: func(ws *websocket.Conn) {
		started = true
		defer ws.Close()
		ws.PayloadType = websocket.BinaryFrame
		ctx, cancel := context.WithCancel(c.Context())
		defer cancel()
		in := &clientInput{Reader: ws, atEnd: cancel} // a websocket has no half-close: its end is the client's
		if err := sess.Run(ctx, in, ws); err != nil && ctx.Err() == nil && !errors.Is(err, container.ErrDetached) {
			c.log.Info("attach over a websocket ended with an error", "path", c.URL.Path, "error", err)
		}
	}}
	server.ServeHTTP(c.ResponseWriter, c.Request)
	if !started {
		_ = sess.Close()
	}
	return nil
}
