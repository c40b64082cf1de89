/** Units: from the end of a field's name, from a text beside the number, or from a user property. Pure. */
import type { MessageProperties } from "../api/types";

const BY_SUFFIX: Record<string, string> = {
  c: "°C",
  f: "°F",
  pct: "%",
  percent: "%",
  hpa: "hPa",
  v: "V",
  a: "A",
  w: "W",
  kw: "kW",
  wh: "Wh",
  kwh: "kWh",
  lux: "lux",
  ppm: "ppm",
  ppb: "ppb",
  ms: "ms",
  rpm: "rpm",
  db: "dB",
  dbm: "dBm",
  mm: "mm",
  mps: "m/s",
  lpm: "L/min",
};

/** Units that may stand behind a number in a text payload: "21.5 °C". */
const BEHIND_NUMBER = /^(?:°C|°F|%|hPa|mbar|bar|Pa|kPa|mV|V|mA|A|W|kW|Wh|kWh|lux|lx|ppm|ppb|µs|ms|s|min|h|rpm|Hz|kHz|MHz|dB|dBm|mm|cm|m|km|km\/h|m\/s|g|kg|L|l|L\/min|m³|m³\/h|µg\/m³)$/;

/** "temp_c" → ["temp", "°C"]; a name without a known ending has no unit. */
export function unitOfName(name: string): { label: string; unit: string } {
  const cut = name.lastIndexOf("_");
  let unit = cut > 0 ? BY_SUFFIX[name.slice(cut + 1).toLowerCase()] : undefined;
  if (unit === "ms" && /wind|gust|speed/i.test(name)) unit = "m/s"; // no wind blows in milliseconds
  return unit ? { label: name.slice(0, cut), unit } : { label: name, unit: "" };
}

/** A text that is entirely a number, optionally with a known unit; "007" is a text. */
export function numberOfText(text: string): { value: number; unit: string } | null {
  if (text.length > 40) return null;
  const match = /^\s*([+-]?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*(\S{0,6})\s*$/.exec(text);
  if (!match) return null;
  const unit = match[2] ?? "";
  if (unit && !BEHIND_NUMBER.test(unit)) return null;
  return { value: Number(match[1]), unit };
}

/** The unit that a message states for its numbers: the field `unit` beside it, or the user property `unit`. */
export function statedUnit(payload: unknown, properties: MessageProperties | undefined): string {
  if (payload !== null && typeof payload === "object" && !Array.isArray(payload)) {
    const unit = (payload as Record<string, unknown>)["unit"];
    if (typeof unit === "string" && unit.length <= 8) return unit;
  }
  const property = properties?.user_properties?.find(([name]) => name === "unit");
  return property && property[1].length <= 8 ? property[1] : "";
}
