import type { Reader } from '../../base/index.ts';
import { overLimit, unexpected, unsupported } from '../errors.ts';
import { SECTIONS_MAX } from '../limits.ts';
import type { SectionHeader } from './events.ts';
import { sectionPath } from './section.ts';

/** The sections seen so far and what may still be said under their ids. */
export class SectionTable {
  readonly #byId = new Map<number, SectionHeader>();
  readonly #ended = new Set<number>();

  /** By id, as START or FULL said. */
  get known(): ReadonlyMap<number, SectionHeader> {
    return this.#byId;
  }

  /** Postcopy recovery: what has been ended may go on, since its end may have been lost. */
  reopen(): void {
    this.#ended.clear();
  }

  /** Enters the section whose header stands at stream offset `at`; throws if the order of sections forbids it. */
  enter(reader: Reader, section: SectionHeader, at: number): void {
    const path = sectionPath(section);
    const before = this.#byId.get(section.id);
    if (section.kind === 'part' || section.kind === 'end') {
      if (before?.kind === 'full')
        throw unexpected(reader, at, path, 'section', 'nothing after its FULL section', section.kind);
      if (this.#ended.has(section.id))
        throw unexpected(reader, at, path, 'section', 'nothing after its END', section.kind);
      if (section.kind === 'end') this.#ended.add(section.id);
      return;
    }
    if (section.idstr === 'block')
      throw unsupported(reader, at, path, 'block migration (removed in QEMU 9.1)', 'section block');
    if (section.kind === 'full' && isIterable(section)) {
      throw unexpected(reader, at, path, 'kind of section', 'start', 'full');
    }
    if (before !== undefined) {
      // A VFIO device sends its config as a FULL section under the id of its iterable one.
      const sameDevice = before.idstr === section.idstr && before.instance === section.instance;
      if (!sameDevice || section.kind !== 'full' || before.kind !== 'start') {
        throw unexpected(reader, at, path, 'section id', `one not used by ${sectionPath(before)}`, section.id);
      }
      this.#byId.set(section.id, section);
      return;
    }
    // Two sections may have the same name and instance: QEMU 7.2 sends both `isa-ide` controllers of an isapc as instance 0.
    if (this.#byId.size === SECTIONS_MAX) {
      throw overLimit(reader, at, path, 'sections', SECTIONS_MAX, SECTIONS_MAX + 1);
    }
    this.#byId.set(section.id, section);
  }
}

function isIterable(section: SectionHeader): boolean {
  return section.idstr === 'ram' || section.idstr === 'dirty-bitmap';
}
