/** Starts the page. */
import "uplot/dist/uPlot.min.css";
import "../style/tokens.css";
import "../style/base.css";
import "../style/frame.css";
import "../style/time.css";
import "../style/lists.css";
import "../style/values.css";
import { render } from "preact";
import { App } from "./App";
import { listenToKeys } from "./keys";
import { listenToHistory } from "./router";
import { startTheme } from "./theme";
import { startTimeline } from "./timeline";

startTheme();
listenToHistory();
listenToKeys();
startTimeline();
const page = document.getElementById("page");
if (page) render(<App />, page);
