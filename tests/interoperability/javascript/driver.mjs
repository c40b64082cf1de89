// Driver of the npm package mqtt: MQTT 3.1.1 and 5, TCP and WebSocket.
// What commands and events say stands in client_process.py.
import { createInterface } from "node:readline";

import mqtt from "mqtt";

const TIMEOUT_MS = 15_000;

/** Property names of the drivers and of the package. */
const PROPERTY_NAMES = {
  assigned_client_identifier: "assignedClientIdentifier",
  content_type: "contentType",
  correlation_data: "correlationData",
  maximum_packet_size: "maximumPacketSize",
  message_expiry_interval: "messageExpiryInterval",
  payload_format_indicator: "payloadFormatIndicator",
  receive_maximum: "receiveMaximum",
  response_topic: "responseTopic",
  session_expiry_interval: "sessionExpiryInterval",
  subscription_identifier: "subscriptionIdentifier",
  topic_alias: "topicAlias",
  topic_alias_maximum: "topicAliasMaximum",
  user_properties: "userProperties",
  will_delay_interval: "willDelayInterval",
};

const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

function toPackage(given) {
  const made = {};
  for (const [name, value] of Object.entries(given ?? {})) {
    if (name === "correlation_data") {
      made.correlationData = Buffer.from(value, "hex");
    } else if (name === "payload_format_indicator") {
      made.payloadFormatIndicator = value === 1;
    } else if (name === "user_properties") {
      made.userProperties = {};
      for (const [key, text] of value) {
        made.userProperties[key] = [...(made.userProperties[key] ?? []), text];
      }
    } else {
      made[PROPERTY_NAMES[name]] = value;
    }
  }
  return made;
}

function fromPackage(found) {
  const said = {};
  for (const [name, word] of Object.entries(PROPERTY_NAMES)) {
    const value = found?.[word];
    if (value === undefined || name === "topic_alias") {
      continue;
    }
    if (name === "correlation_data") {
      said[name] = value.toString("hex");
    } else if (name === "payload_format_indicator") {
      said[name] = value ? 1 : 0;
    } else if (name === "user_properties") {
      said[name] = Object.entries(value).flatMap(([key, texts]) => [texts].flat().map((text) => [key, text]));
    } else if (name === "subscription_identifier") {
      said.subscription_identifiers = [value].flat();
    } else {
      said[name] = value;
    }
  }
  return said;
}

/** One connection. */
class Client {
  #name;
  #mqtt;
  #isV5;
  #isLeaving = false;
  #reasons = {};

  connect(command) {
    this.#name = command.client;
    this.#isV5 = command.version === "5";
    const { will } = command;
    const isWebSocket = command.transport === "websocket";
    this.#mqtt = mqtt.connect({
      protocol: isWebSocket ? "ws" : "mqtt",
      path: isWebSocket ? "/mqtt" : undefined,
      host: "127.0.0.1",
      port: command.port,
      protocolVersion: { 3.1: 3, "3.1.1": 4, 5: 5 }[command.version],
      protocolId: command.version === "3.1" ? "MQIsdp" : "MQTT",
      clientId: command.client_id,
      clean: command.clean,
      keepalive: command.keep_alive,
      reconnectPeriod: 0,
      connectTimeout: TIMEOUT_MS,
      resubscribe: false,
      properties: this.#isV5 ? toPackage(command.properties) : undefined,
      will: will && {
        topic: will.topic,
        payload: Buffer.from(will.payload, "hex"),
        qos: will.qos,
        retain: will.retain,
        properties: this.#isV5 ? toPackage(will.properties) : undefined,
      },
    });
    this.#mqtt.on("message", (topic, payload, packet) => this.#tell(topic, payload, packet));
    // Callbacks of the package leave out reasons that are no errors.
    this.#mqtt.on("packetreceive", (packet) => {
      this.#reasons[packet.cmd] = packet.reasonCode ?? packet.granted?.[0] ?? 0;
    });
    return new Promise((resolve, reject) => {
      const answer = (reason, present, properties) =>
        resolve({ event: "connected", reason, session_present: present, properties: fromPackage(properties) });
      this.#mqtt.on("error", (error) => {
        this.#isLeaving ||= !this.#mqtt.connected;
        return error.code > 0 ? answer(error.code, false) : reject(error);
      });
      this.#mqtt.on("connect", (connack) => answer(0, connack.sessionPresent, connack.properties));
      let reason = null;
      this.#mqtt.on("disconnect", (packet) => {
        reason = packet.reasonCode;
      });
      this.#mqtt.on("close", () => {
        if (!this.#isLeaving) {
          say({ event: "closed", client: this.#name, reason });
        }
      });
    });
  }

  subscribe(command) {
    const options = { qos: command.qos };
    if (this.#isV5) {
      options.nl = command.no_local;
      options.rap = command.retain_as_published;
      options.rh = command.retain_handling;
      options.properties = toPackage(command.properties);
    }
    return new Promise((resolve, reject) => {
      this.#mqtt.subscribe(command.filter, options, (error, granted, suback) => {
        const reason = suback?.granted?.[0] ?? granted?.[0]?.qos ?? error?.code;
        return reason === undefined ? reject(error) : resolve({ event: "suback", reason });
      });
    });
  }

  async unsubscribe(command) {
    await this.#mqtt.unsubscribeAsync(command.filter);
    return { event: "unsuback", reason: this.#isV5 ? this.#reasons.unsuback : null };
  }

  publish(command) {
    const options = { qos: command.qos, retain: command.retain };
    if (this.#isV5) {
      options.properties = toPackage(command.properties);
    }
    return new Promise((resolve, reject) => {
      this.#mqtt.publish(command.topic, Buffer.from(command.payload, "hex"), options, (error) => {
        if (error && error.code === undefined) {
          reject(error);
        } else {
          const reason = this.#reasons[command.qos === 1 ? "puback" : "pubrec"];
          resolve({ event: "puback", reason: command.qos > 0 && this.#isV5 ? reason : null });
        }
      });
    });
  }

  /** The package sends them all, whatever Receive Maximum says. */
  async burst(command) {
    const payloads = command.payloads.map((payload) => Buffer.from(payload, "hex"));
    await Promise.all(payloads.map((each) => this.#mqtt.publishAsync(command.topic, each, { qos: command.qos })));
    return { event: "published" };
  }

  async disconnect(command) {
    this.#isLeaving = true;
    await this.#mqtt.endAsync(false, this.#isV5 ? { properties: toPackage(command.properties) } : {});
    return { event: "disconnected" };
  }

  #tell(topic, payload, packet) {
    say({
      event: "message",
      client: this.#name,
      topic,
      payload: payload.toString("hex"),
      qos: packet.qos,
      retain: packet.retain,
      properties: fromPackage(packet.properties),
    });
  }
}

/** A promise of the package may stay open when its connection ends. */
function inTime(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("no answer")), TIMEOUT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const clients = new Map();
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.do === "connect") {
    clients.set(command.client, new Client());
  }
  let answer;
  try {
    answer = await inTime(clients.get(command.client)[command.do](command));
  } catch (error) {
    answer = { event: "failed", error: String(error?.stack ?? error) };
  }
  say({ ...answer, id: command.id });
}
process.exit(0);
