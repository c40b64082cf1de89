package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/gorilla/websocket"
)

// dial opens what paho.golang takes as its connection: it speaks MQTT, the program brings the transport.
func dial(ctx context.Context, transport string, port int) (net.Conn, error) {
	address := fmt.Sprintf("127.0.0.1:%d", port)
	if transport == "tcp" {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", address)
	}
	dialer := websocket.Dialer{Subprotocols: []string{"mqtt"}}
	opened, _, err := dialer.DialContext(ctx, "ws://"+address+"/mqtt", nil)
	if err != nil {
		return nil, err
	}
	return packets.NewThreadSafeConn(&websocketStream{Conn: opened}), nil
}

// websocketStream is the payload of binary frames as a stream of bytes.
type websocketStream struct {
	*websocket.Conn
	frame io.Reader
}

func (s *websocketStream) Read(buffer []byte) (int, error) {
	for {
		if s.frame == nil {
			_, frame, err := s.NextReader()
			if err != nil {
				return 0, err
			}
			s.frame = frame
		}
		count, err := s.frame.Read(buffer)
		if err == io.EOF {
			s.frame = nil
			err = nil
		}
		if count > 0 || err != nil {
			return count, err
		}
	}
}

func (s *websocketStream) Write(data []byte) (int, error) {
	if err := s.WriteMessage(websocket.BinaryMessage, data); err != nil {
		return 0, err
	}
	return len(data), nil
}

func (s *websocketStream) SetDeadline(at time.Time) error {
	if err := s.SetReadDeadline(at); err != nil {
		return err
	}
	return s.SetWriteDeadline(at)
}
