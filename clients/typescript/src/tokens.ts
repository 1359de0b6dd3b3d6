// The caller's access token: requested when first needed, cached, and renewed once for all calls that found it expired.

/**
 * Gets the caller's access token. Asked without an argument for the first one, and with the token that expired for a new one. The
 * answer is kept until the gateway refuses it, so give every user a separate client.
 */
export type TokenProvider = (expired?: string) => string | Promise<string>;

/** A token that was requested, and may have arrived. */
export type Asked = Promise<string>;

export class Tokens {
  readonly #provider: TokenProvider;
  readonly #successors = new WeakMap<Asked, Asked>();
  #held: Asked | undefined;

  constructor(token: string | TokenProvider) {
    this.#provider = typeof token === "string" ? () => token : token;
  }

  /** The token in use. */
  held(): Asked {
    return (this.#held ??= this.#ask());
  }

  /**
   * What follows `stale`, which was `expired`: requested by the first call that found out, shared by all the others, also those that
   * find out after it could not be had.
   */
  renewed(stale: Asked, expired: string): Asked {
    if (this.#held !== undefined && this.#held !== stale) return this.#held;
    let successor = this.#successors.get(stale);
    if (successor === undefined) {
      successor = this.#ask(expired);
      this.#successors.set(stale, successor);
      this.#held = successor;
    }
    return successor;
  }

  /** Requests a new one next time, unless that has happened. */
  forget(stale: Asked): void {
    if (this.#held === stale) this.#held = undefined;
  }

  #ask(expired?: string): Asked {
    // Not called at once: what the provider throws is a rejection like any other.
    const asked = Promise.resolve().then(() => this.#provider(expired));
    asked.catch(() => this.forget(asked));
    return asked;
  }
}
