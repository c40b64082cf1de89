package main

import (
	"context"
	"encoding/hex"
	"sync"

	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"
)

// sessions are what the library keeps of a session between two connections, by client identifier.
var sessions = map[string]*state.State{}

// version5Client is a connection of paho.golang.
type version5Client struct {
	name    string
	mqtt    *paho.Client
	aliases map[uint16]string

	lock      sync.Mutex
	holds     bool
	held      []*paho.Publish
	isLeaving bool
	toldClose sync.Once
}

func (c *version5Client) connect(given command) (event, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	connection, err := dial(ctx, given.Transport, given.Port)
	if err != nil {
		return nil, err
	}
	if given.Clean || sessions[given.ClientID] == nil {
		sessions[given.ClientID] = state.NewInMemory()
	}
	c.aliases = map[uint16]string{}
	c.holds = given.HoldAcknowledgements
	c.mqtt = paho.NewClient(paho.ClientConfig{
		ClientID:                   given.ClientID,
		Conn:                       connection,
		Session:                    sessions[given.ClientID],
		PacketTimeout:              timeout,
		OnPublishReceived:          []func(paho.PublishReceived) (bool, error){c.tell},
		EnableManualAcknowledgment: c.holds,
		OnServerDisconnect:         func(packet *paho.Disconnect) { c.closed(&packet.ReasonCode) },
		OnClientError:              func(error) { c.closed(nil) },
	})
	connack, err := c.mqtt.Connect(ctx, connectPacket(given))
	if connack == nil {
		return nil, err
	}
	return event{
		"event": "connected", "reason": connack.ReasonCode, "session_present": connack.SessionPresent,
		"properties": connackProperties(connack),
	}, nil
}

func (c *version5Client) subscribe(given command) (event, error) {
	packet := &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{
		Topic:             given.Filter,
		QoS:               given.QoS,
		NoLocal:           given.NoLocal,
		RetainAsPublished: given.RetainAsPublished,
		RetainHandling:    given.RetainHandling,
	}}}
	if given.Properties.SubscriptionIdentifier != nil {
		packet.Properties = &paho.SubscribeProperties{SubscriptionIdentifier: given.Properties.SubscriptionIdentifier}
	}
	suback, err := c.mqtt.Subscribe(context.Background(), packet)
	if suback == nil {
		return nil, err
	}
	return event{"event": "suback", "reason": suback.Reasons[0]}, nil
}

func (c *version5Client) unsubscribe(given command) (event, error) {
	unsuback, err := c.mqtt.Unsubscribe(context.Background(), &paho.Unsubscribe{Topics: []string{given.Filter}})
	if unsuback == nil {
		return nil, err
	}
	return event{"event": "unsuback", "reason": unsuback.Reasons[0]}, nil
}

func (c *version5Client) publish(given command) (event, error) {
	answer, err := c.mqtt.Publish(context.Background(), &paho.Publish{
		Topic:      given.Topic,
		Payload:    given.Payload,
		QoS:        given.QoS,
		Retain:     given.Retain,
		Properties: publishProperties(given.Properties),
	})
	if answer == nil {
		return nil, err
	}
	if given.QoS == 0 {
		return event{"event": "puback", "reason": nil}, nil
	}
	return event{"event": "puback", "reason": answer.ReasonCode}, nil
}

// burst waits where Receive Maximum says so, and for the last one.
func (c *version5Client) burst(given command) (event, error) {
	options := paho.PublishOptions{Method: paho.PublishMethod_AsyncSend}
	for at, payload := range given.Payloads {
		if at == len(given.Payloads)-1 {
			options.Method = paho.PublishMethod_Blocking
		}
		packet := &paho.Publish{Topic: given.Topic, Payload: payload, QoS: given.QoS}
		if _, err := c.mqtt.PublishWithOptions(context.Background(), packet, options); err != nil {
			return nil, err
		}
	}
	return event{"event": "published"}, nil
}

func (c *version5Client) acknowledge() (event, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.holds = false
	for _, packet := range c.held {
		if err := c.mqtt.Ack(packet); err != nil {
			return nil, err
		}
	}
	return event{"event": "acknowledged"}, nil
}

func (c *version5Client) disconnect(given command) (event, error) {
	c.lock.Lock()
	c.isLeaving = true
	c.lock.Unlock()
	packet := &paho.Disconnect{}
	if given.Properties.SessionExpiryInterval != nil {
		packet.Properties = &paho.DisconnectProperties{SessionExpiryInterval: given.Properties.SessionExpiryInterval}
	}
	err := c.mqtt.Disconnect(packet)
	<-c.mqtt.Done()
	return event{"event": "disconnected"}, err
}

func (c *version5Client) tell(received paho.PublishReceived) (bool, error) {
	packet := received.Packet
	topic := packet.Topic
	if alias := packet.Properties.TopicAlias; alias != nil { // the library leaves them to the program
		if topic == "" {
			topic = c.aliases[*alias]
		}
		c.aliases[*alias] = topic
	}
	say(event{
		"event":      "message",
		"client":     c.name,
		"topic":      topic,
		"payload":    hex.EncodeToString(packet.Payload),
		"qos":        packet.QoS,
		"retain":     packet.Retain,
		"properties": messageProperties(packet.Properties),
	})
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.holds {
		c.held = append(c.held, packet)
		return true, nil
	}
	if err := c.mqtt.Ack(packet); err != nil && err != paho.ErrManualAcknowledgmentDisabled {
		return true, err
	}
	return true, nil
}

// closed tells once that the server has gone; nil when it gave no reason.
func (c *version5Client) closed(reason *byte) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if !c.isLeaving {
		c.toldClose.Do(func() { say(event{"event": "closed", "client": c.name, "reason": reason}) })
	}
}
