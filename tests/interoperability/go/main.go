// Driver of the two clients of Go: paho.mqtt.golang for MQTT 3.1.1, paho.golang for MQTT 5; TCP and WebSocket.
// What commands and events say stands in client_process.py.
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

const timeout = 15 * time.Second

type event map[string]any

// hexBytes are bytes that stand in JSON as hexadecimal digits.
type hexBytes []byte

func (b *hexBytes) UnmarshalJSON(text []byte) error {
	var digits string
	if err := json.Unmarshal(text, &digits); err != nil {
		return err
	}
	var err error
	*b, err = hex.DecodeString(digits)
	return err
}

// properties are those of MQTT 5; nil is absent.
type properties struct {
	ContentType            string      `json:"content_type"`
	CorrelationData        hexBytes    `json:"correlation_data"`
	MaximumPacketSize      *uint32     `json:"maximum_packet_size"`
	MessageExpiryInterval  *uint32     `json:"message_expiry_interval"`
	PayloadFormatIndicator *byte       `json:"payload_format_indicator"`
	ReceiveMaximum         *uint16     `json:"receive_maximum"`
	ResponseTopic          string      `json:"response_topic"`
	SessionExpiryInterval  *uint32     `json:"session_expiry_interval"`
	SubscriptionIdentifier *int        `json:"subscription_identifier"`
	TopicAlias             *uint16     `json:"topic_alias"`
	TopicAliasMaximum      *uint16     `json:"topic_alias_maximum"`
	UserProperties         [][2]string `json:"user_properties"`
	WillDelayInterval      *uint32     `json:"will_delay_interval"`
}

type will struct {
	Topic      string     `json:"topic"`
	Payload    hexBytes   `json:"payload"`
	QoS        byte       `json:"qos"`
	Retain     bool       `json:"retain"`
	Properties properties `json:"properties"`
}

type command struct {
	ID         int        `json:"id"`
	Do         string     `json:"do"`
	Client     string     `json:"client"`
	Properties properties `json:"properties"`

	Port                 int    `json:"port"`
	Transport            string `json:"transport"`
	Version              string `json:"version"`
	ClientID             string `json:"client_id"`
	Clean                bool   `json:"clean"`
	KeepAlive            uint16 `json:"keep_alive"`
	Will                 *will  `json:"will"`
	HoldAcknowledgements bool   `json:"hold_acknowledgements"`

	Filter            string `json:"filter"`
	NoLocal           bool   `json:"no_local"`
	RetainAsPublished bool   `json:"retain_as_published"`
	RetainHandling    byte   `json:"retain_handling"`

	Topic   string   `json:"topic"`
	Payload hexBytes `json:"payload"`
	QoS     byte     `json:"qos"`
	Retain  bool     `json:"retain"`

	Payloads []hexBytes `json:"payloads"`
}

// client is one connection.
type client interface {
	connect(command) (event, error)
	subscribe(command) (event, error)
	unsubscribe(command) (event, error)
	publish(command) (event, error)
	burst(command) (event, error)
	acknowledge() (event, error)
	disconnect(command) (event, error)
}

var output sync.Mutex

func say(what event) {
	line, err := json.Marshal(what)
	if err != nil {
		panic(err)
	}
	output.Lock()
	defer output.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

func answer(clients map[string]client, given command) (event, error) {
	if given.Do == "connect" {
		if given.Version == "5" {
			clients[given.Client] = &version5Client{name: given.Client}
		} else {
			clients[given.Client] = &version3Client{name: given.Client}
		}
	}
	one, ok := clients[given.Client]
	if !ok {
		return nil, fmt.Errorf("no client %q", given.Client)
	}
	switch given.Do {
	case "connect":
		return one.connect(given)
	case "subscribe":
		return one.subscribe(given)
	case "unsubscribe":
		return one.unsubscribe(given)
	case "publish":
		return one.publish(given)
	case "burst":
		return one.burst(given)
	case "acknowledge":
		return one.acknowledge()
	case "disconnect":
		return one.disconnect(given)
	}
	return nil, fmt.Errorf("no command %q", given.Do)
}

func main() {
	clients := map[string]client{}
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var given command
		if err := json.Unmarshal(line, &given); err != nil {
			panic(err)
		}
		said, err := answer(clients, given)
		if err != nil {
			said = event{"event": "failed", "error": err.Error()}
		}
		said["id"] = given.ID
		say(said)
	}
}
