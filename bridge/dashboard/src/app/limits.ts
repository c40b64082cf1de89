/**
 * Every bound of the page in one place, each with its reason. A queue, ring, map or list elsewhere takes its limit from here.
 */

// ---- stream -----------------------------------------------------------------------------------------------------------

/** The server sends at least a comment every 15 s; more than two and a half of those without a byte is a dead connection. */
export const HEARTBEAT_S = 15;
export const SILENT_HEARTBEATS_MAX = 8 / 3;
/** First wait before a reconnect; doubles at each try, with full jitter, so that many pages do not come back at once. */
export const RETRY_FIRST_MS = 250;
/** Longer waits only make a person press "Now". */
export const RETRY_MAX_MS = 15_000;
/** After this long without a connection or on screen, a fresh snapshot is shown instead of a replay of what was missed. */
export const AWAY_MS_MAX = 120_000;
/** A hidden page keeps its stream this long: switching tabs for a moment costs nothing, a forgotten tab frees its connection. */
export const HIDDEN_STREAM_MS = 300_000;
/** Typing a filter: changes are gathered, so that a word is one new stream and not one for each letter. */
export const FILTER_SETTLE_MS = 300;
/** nginx refuses a request line above 8 KiB; the cursor may be 2 KiB and goes in a header. */
export const REQUEST_CHARS_MAX = 7 * 1024;
/** One event may hold a payload of 1 MiB as base64 or escaped JSON; anything larger is not an event of this server. */
export const EVENT_CHARS_MAX = 16 * 1024 * 1024;
/** More filter terms than this do not fit the filter bar, nor a request line. */
export const FILTERS_MAX = 32;
/** Behind by more than this is told in the header instead of the delay. */
export const BEHIND_MS = 2_000;

// ---- time -------------------------------------------------------------------------------------------------------------

/** Buckets of the time bar's histogram: one for each 3 to 5 pixels of a usual screen. */
export const BUCKETS = 240;
/** Requests for one picture of the bar; a server that stops counting sooner is asked again where it stopped. */
export const HISTOGRAM_REQUESTS_MAX = 24;
/** The newest buckets are counted again so often, at most and at least; between them as often as a bucket is wide. */
export const HISTOGRAM_MS_MIN = 2_000;
export const HISTOGRAM_MS_MAX = 15_000;
/** Records of the last seconds may still be on their way through a commit: those buckets are not final. */
export const HISTOGRAM_SETTLE_MS = 10_000;
/** Dragging: a moment is asked for when the pointer has rested. */
export const SCRUB_SETTLE_MS = 120;
/** A replay's head moves so often while nothing comes. */
export const HEAD_MS = 100;
/** Topics of one request for the state at a moment: about 2 MB of JSON, parsed in 20 ms. */
export const STATE_PAGE = 5_000;
/** Events held back while the page is paused; beyond that the log shows what came, after "Go on". */
export const PAUSE_EVENTS_MAX = 5_000;
export const PAUSE_CHARS_MAX = 8 * 1024 * 1024;
/** How long "Caught up with now" is said. */
export const CAUGHT_UP_MS = 6_000;

// ---- worker to page ---------------------------------------------------------------------------------------------------

/** 20 updates a second: people cannot read faster. */
export const FRAME_MS = 50;
/** With more plots than this on screen they are redrawn 10 times a second instead of 20. */
export const FAST_PLOTS_MAX = 12;
export const SLOW_PLOT_FRAME_MS = 100;
/** Ages, rates and warnings move without messages: the visible rows are sent again once a second. */
export const REFRESH_MS = 1_000;

// ---- tree -------------------------------------------------------------------------------------------------------------

/** 100,000 topics are about 60 MB in the worker; the header says when a server has more. */
export const TOPICS_MAX = 100_000;
/** Rows in the DOM; a 4K screen shows 75 rows of 28 px. */
export const TREE_ROWS_MAX = 80;
/** The tree opens by itself as far as it fits one screen. */
export const TREE_AUTO_ROWS = 28;
/** Sparklines and field profiles are kept for the topics that were on screen or heard last. */
export const PROFILES_MAX = 2_000;
export const SPARK_POINTS = 32;
/** A topic silent for more than so many of its usual intervals gets a warning sign, and a dotted line in plots. */
export const SILENT_INTERVALS = 3;
/** Sorting by rate or age moves rows: not more often than eyes can follow. */
export const RESORT_MS = 1_000;

// ---- payloads ---------------------------------------------------------------------------------------------------------

export const FIELD_DEPTH_MAX = 6;
export const FIELDS_MAX = 64;
/** Kinds are judged over the last messages of a topic only: sensors get new firmware. */
export const CLASSIFY_MESSAGES = 200;
export const ENUM_TEXTS_MAX = 12;
export const ENUM_CHARS_MAX = 32;
/** A whole number that never fell over so many samples is a counter. */
export const COUNTER_SAMPLES = 20;
/** One line of the tail or tree; wider screens do not exist. */
export const SUMMARY_CHARS_MAX = 300;

// ---- tail -------------------------------------------------------------------------------------------------------------

export const TAIL_MESSAGES_MAX = 5_000;
export const TAIL_BYTES_MAX = 16 * 1024 * 1024;
/** A payload above 64 KiB is kept as its first 4 KiB. */
export const PAYLOAD_CHARS_MAX = 64 * 1024;
export const PAYLOAD_HEAD_CHARS = 4 * 1024;
/** Filled from the log when the page opens, for each stream. */
export const TAIL_HISTORY = 300;
export const TAIL_ROWS_MAX = 80;
/** Streams asked for the tail's history; more are live only. */
export const TAIL_HISTORY_STREAMS_MAX = 8;

// ---- plots ------------------------------------------------------------------------------------------------------------

/** uPlot takes 4,000 points in 1.2 ms; twelve plots of that fit into one frame. */
export const PLOT_POINTS_MAX = 4_096;
/** Topics whose points are kept; least recently shown goes. */
export const PLOT_TOPICS_MAX = 200;
/** Plots of one selected branch; more do not fit a screen and are named in the title. */
export const PLOTS_MAX = 24;
/** With nothing selected. */
export const PLOTS_UNASKED = 6;
/** Records of one history request: about 300 KB of JSON, parsed in 2 ms. */
export const HISTORY_PAGE = 1_000;
/** The newest points first: what is seen at once need not wait for what is far to the left. */
export const HISTORY_FIRST_PAGE = 250;
export const HISTORY_PAGES_MAX = 5;
/** Points that stand for several messages each, kept for what is before the ring: two for each pixel of a plot. */
export const REDUCED_POINTS_MAX = 1_200;
/** A plot's points on the page are sent anew when they are so many: the worker has reduced the oldest since. */
export const PLOT_BUFFER_MAX = PLOT_POINTS_MAX + REDUCED_POINTS_MAX + 1_024;
/** Above a page of records the server reduces a field to so many points: two for each pixel of a wide plot's half. */
export const SERIES_POINTS = 600;
/** A server that stops sooner is asked again where it stopped. */
export const SERIES_REQUESTS_MAX = 8;
/** HTTP/1.1 gives a page six connections; the stream has one, and other tabs want some. */
export const HISTORY_REQUESTS_MAX = 2;
/** Gaps remembered for plots that are opened later. */
export const GAPS_MAX = 200;

// ---- streams ----------------------------------------------------------------------------------------------------------

/** The Streams view asks again so often, while it is on screen. */
export const STREAMS_MS = 2_000;
/** Partitions of one stream that are listed; a topic with more is looked at with Kafka's own tools. */
export const PARTITIONS_SHOWN_MAX = 200;

// ---- devices ----------------------------------------------------------------------------------------------------------

/** The Devices view and the page of one ask again so often, while they are on screen. */
export const DEVICES_MS = 2_000;
/** Who was refused is asked for so often: a typing error shall be seen two seconds after it was made. */
export const REFUSED_MS = 2_000;
/** Refusals that are looked at; the same device's are one line. */
export const REFUSED_RECORDS = 100;
/** Devices of one page of the list. */
export const DEVICES_PAGE = 200;
/** Changes of one device that are listed and drawn; older ones are found by going back in time. */
export const CHANGES_MAX = 500;
