// Keeps the page up to date, unless it is paused. Text that somebody has selected, and the focus, stay.
const main = document.getElementById("main");
const news = document.getElementById("news"); // read out when it changes; main is drawn anew all the time, so nothing in it is
const pause = document.getElementById("pause");
const stale = document.getElementById("stale");
const events = new EventSource("events");
const state = () => main.querySelector(".state")?.textContent;
let since = null;
let paused = false;
let latest = null; // what has come while it is paused

function show(drawn) {
	const selected = document.getSelection();
	if (selected !== null && !selected.isCollapsed) return;
	const scrolls = new Map([...main.querySelectorAll(".scroll")].map((e) => [e.ariaLabel, [e.scrollLeft, e === document.activeElement]]));
	const before = state();
	main.innerHTML = drawn;
	for (const e of main.querySelectorAll(".scroll")) {
		const [left, focused] = scrolls.get(e.ariaLabel) ?? [0, false];
		e.scrollLeft = left;
		if (focused) e.focus();
	}
	if (before !== state()) news.textContent = "pgamqp is " + state();
}

events.onmessage = (event) => {
	if (since !== null) {
		since = null;
		stale.textContent = "";
	}
	if (paused) latest = event.data;
	else show(event.data);
};
events.onerror = () => {
	if (since !== null) return;
	since = new Date();
	stale.textContent = "The daemon does not answer since " + since.toLocaleTimeString() + "; what you see is from before.";
};

pause.hidden = false;
pause.onclick = () => {
	paused = !paused;
	pause.textContent = paused ? "Resume updates" : "Pause updates";
	if (!paused && latest !== null) show(latest);
	latest = null;
};
