/** Starts the page. */
import "uplot/dist/uPlot.min.css";
import "../style/tokens.css";
import "../style/base.css";
import "../style/frame.css";
import "../style/lists.css";
import "../style/values.css";
import "../style/welcome.css";
import { render } from "preact";
import { App } from "./App";
import { listenToKeys } from "./keys";
import { start } from "./link";
import { listenToHistory } from "./router";
import { startTheme } from "./theme";

startTheme();
listenToHistory();
listenToKeys();
start();
const page = document.getElementById("page");
if (page) render(<App />, page);
