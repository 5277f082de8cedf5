import { assert } from './assert.ts';

/** Legal moves of a state machine: state -> the states that may follow. */
export type Arcs<State extends string> = Readonly<Record<State, readonly State[]>>;

export interface Move<State extends string> {
  readonly from: State;
  readonly to: State;
}

/** A state that moves only along its table. `moved` is called after every move, synchronously. */
export class StateMachine<State extends string> {
  #state: State;
  readonly #arcs: Arcs<State>;
  readonly #moved: (move: Move<State>) => void;

  constructor(initial: State, arcs: Arcs<State>, moved: (move: Move<State>) => void = () => {}) {
    this.#state = initial;
    this.#arcs = arcs;
    this.#moved = moved;
  }

  get state(): State {
    return this.#state;
  }

  can(to: State): boolean {
    return this.#arcs[this.#state].includes(to);
  }

  move(to: State): void {
    const from = this.#state;
    assert(this.can(to), `no arc ${from} -> ${to}`);
    this.#state = to;
    this.#moved({ from, to });
  }
}
