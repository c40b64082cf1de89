/** The last points of a topic as a small line without axes; its story is told by the value beside it. */

const WIDTH = 64;
const HEIGHT = 18;

export function Sparkline({ points }: { points: readonly number[] }) {
  if (points.length < 2) return <span class="spark" />;
  const low = Math.min(...points);
  const high = Math.max(...points);
  const span = high - low;
  const at = (value: number): number => (span === 0 ? HEIGHT / 2 : 2 + (1 - (value - low) / span) * (HEIGHT - 4));
  const step = (WIDTH - 4) / (points.length - 1);
  let path = "";
  for (let index = 0; index < points.length; index += 1) {
    path += `${index ? "L" : "M"}${(index * step).toFixed(1)} ${at(points[index] ?? 0).toFixed(1)}`;
  }
  return (
    <span class="spark">
      <svg class="sparkline" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true">
        <path d={path} />
        <circle cx={WIDTH - 4} cy={at(points.at(-1) ?? 0)} r="1.75" />
      </svg>
    </span>
  );
}
