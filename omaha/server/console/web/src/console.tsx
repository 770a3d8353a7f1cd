// The console of semper-server.
import { render } from "preact";
import { settled } from "./api/early";
import { App } from "./app";
import { follow } from "./lib/router";

document.addEventListener("click", follow);
const root = document.getElementById("console");
// What the first view shows was asked for before this script was there. A moment's wait for it, and the page is drawn once, with its content, and not twice.
const moment = 150; // ms
if (root) void settled(moment).then(() => render(<App />, root));
