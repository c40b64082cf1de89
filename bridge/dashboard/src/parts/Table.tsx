/** A table in a box that scrolls by itself, also by keyboard. */
import type { ComponentChildren } from "preact";

export function Table({ label, titles, children }: { label: string; titles: readonly string[]; children: ComponentChildren }) {
  return (
    <div class="table-box" tabIndex={0} role="region" aria-label={label}>
      <table>
        <thead>
          <tr>
            {titles.map((title) => (
              <th scope="col" key={title}>
                {title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}
