/** settings: what an operator may set. Each capability and parameter is declared once; CLI flags, QMP schema and docs follow. */
export interface Settings {
  /** Placeholder shape; see declarations. */
  capability(name: string): boolean;
}
