package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// version3Client is a connection of paho.mqtt.golang.
type version3Client struct {
	name string
	mqtt mqtt.Client

	lock  sync.Mutex
	holds bool
	held  []mqtt.Message
}

func (c *version3Client) connect(given command) (event, error) {
	address := fmt.Sprintf("tcp://127.0.0.1:%d", given.Port)
	if given.Transport == "websocket" {
		address = fmt.Sprintf("ws://127.0.0.1:%d/mqtt", given.Port)
	}
	versions := map[string]uint{"3.1": 3, "3.1.1": 4}
	options := mqtt.NewClientOptions().
		AddBroker(address).
		SetClientID(given.ClientID).
		SetProtocolVersion(versions[given.Version]).
		SetCleanSession(given.Clean).
		SetKeepAlive(time.Duration(given.KeepAlive) * time.Second).
		SetAutoReconnect(false).
		SetDefaultPublishHandler(c.tell).
		SetConnectionLostHandler(func(mqtt.Client, error) {
			say(event{"event": "closed", "client": c.name, "reason": nil})
		})
	if given.Will != nil {
		options.SetBinaryWill(given.Will.Topic, given.Will.Payload, given.Will.QoS, given.Will.Retain)
	}
	c.holds = given.HoldAcknowledgements
	options.SetAutoAckDisabled(c.holds)
	c.mqtt = mqtt.NewClient(options)
	token := c.mqtt.Connect().(*mqtt.ConnectToken)
	err := finished(token)
	if err != nil && token.ReturnCode() == 0 {
		return nil, err
	}
	return event{
		"event": "connected", "reason": token.ReturnCode(), "session_present": token.SessionPresent(), "properties": event{},
	}, nil
}

func (c *version3Client) subscribe(given command) (event, error) {
	token := c.mqtt.Subscribe(given.Filter, given.QoS, nil).(*mqtt.SubscribeToken)
	err := finished(token)
	for _, reason := range token.Result() { // by filter, without what a shared one has in front
		return event{"event": "suback", "reason": reason}, nil
	}
	return nil, errors.Join(errors.New("no SUBACK"), err)
}

func (c *version3Client) unsubscribe(given command) (event, error) {
	return event{"event": "unsuback", "reason": nil}, finished(c.mqtt.Unsubscribe(given.Filter))
}

func (c *version3Client) publish(given command) (event, error) {
	token := c.mqtt.Publish(given.Topic, given.QoS, given.Retain, []byte(given.Payload))
	return event{"event": "puback", "reason": nil}, finished(token)
}

func (c *version3Client) burst(given command) (event, error) {
	var tokens []mqtt.Token
	for _, payload := range given.Payloads {
		tokens = append(tokens, c.mqtt.Publish(given.Topic, given.QoS, false, []byte(payload)))
	}
	for _, token := range tokens {
		if err := finished(token); err != nil {
			return nil, err
		}
	}
	return event{"event": "published"}, nil
}

func (c *version3Client) acknowledge() (event, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.holds = false
	for _, message := range c.held {
		message.Ack()
	}
	return event{"event": "acknowledged"}, nil
}

func (c *version3Client) disconnect(command) (event, error) {
	c.mqtt.Disconnect(1000) // at most: with 0 the library sends no DISCONNECT
	return event{"event": "disconnected"}, nil
}

func (c *version3Client) tell(_ mqtt.Client, message mqtt.Message) {
	say(event{
		"event":      "message",
		"client":     c.name,
		"topic":      message.Topic(),
		"payload":    hex.EncodeToString(message.Payload()),
		"qos":        message.Qos(),
		"retain":     message.Retained(),
		"properties": event{},
	})
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.holds {
		c.held = append(c.held, message)
	} else {
		message.Ack()
	}
}

func finished(token mqtt.Token) error {
	if !token.WaitTimeout(timeout) {
		return errors.New("no answer")
	}
	return token.Error()
}
