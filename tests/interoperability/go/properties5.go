package main

import (
	"encoding/hex"

	"github.com/eclipse/paho.golang/paho"
)

func connectPacket(given command) *paho.Connect {
	packet := &paho.Connect{
		ClientID:   given.ClientID,
		CleanStart: given.Clean,
		KeepAlive:  given.KeepAlive,
		Properties: &paho.ConnectProperties{
			SessionExpiryInterval: given.Properties.SessionExpiryInterval,
			ReceiveMaximum:        given.Properties.ReceiveMaximum,
			TopicAliasMaximum:     given.Properties.TopicAliasMaximum,
			MaximumPacketSize:     given.Properties.MaximumPacketSize,
			RequestProblemInfo:    true,
		},
	}
	if given.Will != nil {
		packet.WillMessage = &paho.WillMessage{
			Topic: given.Will.Topic, Payload: given.Will.Payload, QoS: given.Will.QoS, Retain: given.Will.Retain,
		}
		packet.WillProperties = &paho.WillProperties{
			WillDelayInterval: given.Will.Properties.WillDelayInterval,
			ContentType:       given.Will.Properties.ContentType,
			User:              userProperties(given.Will.Properties),
		}
	}
	return packet
}

func publishProperties(given properties) *paho.PublishProperties {
	return &paho.PublishProperties{
		ContentType:     given.ContentType,
		CorrelationData: given.CorrelationData,
		MessageExpiry:   given.MessageExpiryInterval,
		PayloadFormat:   given.PayloadFormatIndicator,
		ResponseTopic:   given.ResponseTopic,
		TopicAlias:      given.TopicAlias,
		User:            userProperties(given),
	}
}

func userProperties(given properties) paho.UserProperties {
	var made paho.UserProperties
	for _, pair := range given.UserProperties {
		made.Add(pair[0], pair[1])
	}
	return made
}

func messageProperties(found *paho.PublishProperties) event {
	said := event{}
	if found.ContentType != "" {
		said["content_type"] = found.ContentType
	}
	if found.ResponseTopic != "" {
		said["response_topic"] = found.ResponseTopic
	}
	if found.CorrelationData != nil {
		said["correlation_data"] = hex.EncodeToString(found.CorrelationData)
	}
	if found.MessageExpiry != nil {
		said["message_expiry_interval"] = *found.MessageExpiry
	}
	if found.PayloadFormat != nil {
		said["payload_format_indicator"] = *found.PayloadFormat
	}
	if found.SubscriptionIdentifier != nil { // the library keeps one of several
		said["subscription_identifiers"] = []int{*found.SubscriptionIdentifier}
	}
	if len(found.User) > 0 {
		pairs := [][2]string{}
		for _, one := range found.User {
			pairs = append(pairs, [2]string{one.Key, one.Value})
		}
		said["user_properties"] = pairs
	}
	return said
}

func connackProperties(connack *paho.Connack) event {
	said := event{}
	if connack.Properties == nil {
		return said
	}
	if connack.Properties.AssignedClientID != "" {
		said["assigned_client_identifier"] = connack.Properties.AssignedClientID
	}
	if connack.Properties.ReceiveMaximum != nil {
		said["receive_maximum"] = *connack.Properties.ReceiveMaximum
	}
	if connack.Properties.TopicAliasMaximum != nil {
		said["topic_alias_maximum"] = *connack.Properties.TopicAliasMaximum
	}
	if connack.Properties.MaximumPacketSize != nil {
		said["maximum_packet_size"] = *connack.Properties.MaximumPacketSize
	}
	return said
}
