// Keeps the page up to date. Text that somebody has selected, and the focus, stay.
const main = document.getElementById("main");
const stale = document.getElementById("stale");
const events = new EventSource("events");
let since = null;
events.onmessage = (event) => {
	if (since !== null) {
		since = null;
		stale.textContent = "";
	}
	const selected = document.getSelection();
	if (selected !== null && !selected.isCollapsed) return;
	const scrolls = new Map([...main.querySelectorAll(".scroll")].map((e) => [e.ariaLabel, [e.scrollLeft, e === document.activeElement]]));
	main.innerHTML = event.data;
	for (const e of main.querySelectorAll(".scroll")) {
		const [left, focused] = scrolls.get(e.ariaLabel) ?? [0, false];
		e.scrollLeft = left;
		if (focused) e.focus();
	}
};
events.onerror = () => {
	if (since !== null) return;
	since = new Date();
	stale.textContent = "The daemon does not answer since " + since.toLocaleTimeString() + "; what you see is from before.";
};
