"""The mark of messages that we send to a broker from which we also take: they must not come back as new ones.

It is an MQTT 5 user property of this name; its value is the id of the server that sent it.
"""

MARK = "headrace-from"
